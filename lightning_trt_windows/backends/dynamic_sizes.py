"""Decompositions that compute with a dynamic size, where upstream's compute with the one that was traced.

Torch-TensorRT's variance divides by ``float(size)``, and its ``scatter_add`` is a Python loop over the size: both fix
the dimension at the traced size, so that the engine would take no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["with_dynamic_sizes"]


def with_dynamic_sizes(table: Mapping[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Return ``table``, of operators and their decompositions, with none that fixes a dynamic size."""
    replaced = dict(table)
    for operator, wrap in _WRAPPED.items():
        if operator in replaced:
            replaced[operator] = wrap(replaced[operator])
    return replaced


def _variance(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def variance(x: torch.Tensor, dims: Sequence[int] | None, correction: Any = 1, **rest: Any) -> Any:
        axes = list(dims) if dims else list(range(x.dim()))
        sizes = [x.shape[axis] for axis in axes]
        # a larger correction would take a maximum with 0, and a fraction another type of size
        if all(isinstance(size, int) for size in sizes) or correction not in (0, 1):
            return upstream(x, dims, correction, **rest)
        count: Any = 1
        for size in sizes:
            count = count * size
        centred = x - x.mean(axes, keepdim=True)
        return (centred * centred).sum(axes) / (count - int(correction))

    return variance


def _scatter(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def scatter(x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if not isinstance(source.shape[dim], int):
            return NotImplemented  # a loop of unknown length; it stays whole
        return upstream(x, dim, index, source, *rest, **named)

    return scatter


_WRAPPED: dict[Any, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    torch.ops.prims.var.default: _variance,
    torch.ops.aten.scatter_add.default: _scatter,
    torch.ops.aten.scatter_reduce.two: _scatter,
}
