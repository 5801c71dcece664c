"""Types of tensors as ONNX numbers them. Standard library only."""

from __future__ import annotations

__all__ = ["TYPES"]

TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11,
    "bfloat16": 16,
}  # fmt: skip
"""Name of a type to its number in ``onnx.TensorProto.DataType``."""
