"""Tensors that are made, or repeated: on the device of what they are like, with zeros instead of nothing.

Upstream makes them on its default device, a GPU, and refuses the module where there is none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["FACTORIES"]

aten = torch.ops.aten


def _empty_like(
    x: Tensor,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> Tensor:
    return torch.zeros(x.shape, dtype=dtype or x.dtype, device=device or x.device)


def _empty_in_an_order(
    size: Any, order: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None
) -> Tensor:
    return torch.zeros(size, dtype=dtype, device=device)


def _empty(
    size: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> Tensor:
    return torch.zeros(size, dtype=dtype, device=device)


def _repeat(x: Tensor, repeats: Any) -> Any:
    """A number that is repeated along no axis is itself; upstream makes a slice of no axes, which gives anything."""
    return NotImplemented if len(repeats) else x.clone()


FACTORIES = {
    aten.empty_like.default: _empty_like,
    aten.empty_permuted.default: _empty_in_an_order,
    aten.empty_strided.default: _empty_in_an_order,
    aten.empty.memory_format: _empty,
    aten.repeat.default: _repeat,
}
"""Operator to its decomposition; ``NotImplemented`` leaves a case as it is."""
