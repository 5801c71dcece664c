"""The types that ``precision`` and ``io_precision`` are about, tensors of a tracer in them, and a tensor's bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_trt_windows.settings import PRECISION_DTYPES

__all__ = ["REAL", "dtype_of", "fake_in", "is_real", "tensor_bytes"]

REAL = ("float16", "bfloat16", "float32", "float64")
"""What ``io_precision`` converts; floats of eight bits are codes of the user's own."""


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that ``precision`` names."""
    dtype: torch.dtype = getattr(torch, PRECISION_DTYPES[precision])
    return dtype


def is_real(tensor: Tensor) -> bool:
    """Whether the tensor's type is one of ``REAL``."""
    return str(tensor.dtype).removeprefix("torch.") in REAL


def fake_in(value: Any, dtype: torch.dtype) -> Any:
    """``value`` in ``dtype``. Not with ``to``, whose choice of strides may leave a guard on a dynamic size."""
    if value.dtype == dtype:
        return value
    return value.new_empty_strided(value.shape, value.stride(), dtype=dtype)


def tensor_bytes(tensor: Tensor) -> bytes:
    """Copy the values of a tensor, of any type, as bytes in row-major order."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
