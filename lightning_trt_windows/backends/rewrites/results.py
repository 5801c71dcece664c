"""The result of a converter, in the type and with the axes that PyTorch gives it.

Upstream's converters give a number without axes one axis (``x.mean() + 1``), and some compute in another type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from lightning_trt_windows._compat.torch_tensorrt import Upstream

__all__ = ["as_traced"]

_TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}
"""Name in TensorRT to type in PyTorch, of those that a cast may be between."""


def as_traced(blocks: Upstream, network: Any, node: Node, result: Any) -> Any:
    """Make ``result``, what the converter of ``node`` gave, what was traced.

    Args:
        blocks: Upstream's building blocks.
        network: TensorRT's network; layers are added to it where something differs.
        node: The node that was converted.
        result: Tensors of the network, or anything else, which is returned as it is.

    Returns:
        A tensor, or several, of the traced shapes and types.
    """
    value = node.meta.get("val")
    if node.op != "call_function":
        return result
    if isinstance(result, (tuple, list)) and isinstance(value, (tuple, list)) and len(result) == len(value):
        return type(result)(_as_traced(blocks, network, r, v) for r, v in zip(result, value))
    return _as_traced(blocks, network, result, value)


def _as_traced(blocks: Upstream, network: Any, result: Any, value: Any) -> Any:
    trt = blocks.trt
    if not isinstance(result, trt.ITensor) or not isinstance(value, torch.Tensor):
        return result
    if value.dim() == 0 and tuple(result.shape) == (1,):
        shuffle = network.add_shuffle(result)
        shuffle.reshape_dims = ()
        shuffle.name = f"{result.name}_without_axes"
        result = shuffle.get_output(0)
    wanted = next((name for name, dtype in _TYPES.items() if dtype == value.dtype), None)
    if wanted is not None and _name(trt, result.dtype) in _TYPES and _name(trt, result.dtype) != wanted:
        cast = network.add_cast(result, getattr(trt, wanted))
        cast.name = f"{result.name}_as_{wanted}"
        result = cast.get_output(0)
    return result


def _name(trt: Any, dtype: Any) -> str:
    return next((name for name in _TYPES if getattr(trt, name) == dtype), "")
