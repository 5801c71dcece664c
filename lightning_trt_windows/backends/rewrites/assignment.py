"""Assignments to parts of a tensor, in words that convert right: ``x[:, 0] = 0.``, ``x[..., -1] += 1``.

A part that is one slice long is a choice between two tensors, a longer one is put together from pieces. Neither needs a
scatter, whose indices Torch-TensorRT computes wrongly for negative, open or varying ends.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ASSIGNMENT"]

aten = torch.ops.aten

_OPEN_END = 2**62
"""From here on an end means the end of the axis: ``x[2:]`` is captured with the largest integer."""

_MOST_ROWS = 32


def _axis(dim: int, rank: int) -> int:
    return dim + rank if dim < 0 else dim


def _along(values: Tensor, dim: int, rank: int) -> Tensor:
    """A vector as a tensor of ``rank`` axes that varies along ``dim`` only."""
    return values.reshape([1] * dim + [-1] + [1] * (rank - dim - 1))


def _positions(x: Tensor, dim: int) -> Tensor:
    return torch.arange(x.shape[dim], device=x.device)


def _copy(destination: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    source = source.to(destination.dtype)
    return source.expand(destination.shape).clone() if source.shape != destination.shape else source.clone()


def _select_scatter(x: Tensor, source: Tensor, dim: int, index: Any) -> Tensor:
    dim = _axis(dim, x.dim())
    size = x.shape[dim]
    if isinstance(index, int) and index < 0:
        index = index + size
    chosen = _along(_positions(x, dim) == index, dim, x.dim())
    return torch.where(chosen, source.unsqueeze(dim).to(x.dtype), x)


def _slice_scatter(x: Tensor, source: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    dim = _axis(dim, x.dim())
    size = x.shape[dim]
    source = source.to(x.dtype)
    start = _bound(0 if start is None else start, size)
    open_end = end is None or (isinstance(end, int) and end >= _OPEN_END)
    end = size if open_end else _bound(end, size)
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        start, end = min(start, size), min(end, size)
        if start >= end:
            return x.clone()
        if step == 1:
            pieces = [x.narrow(dim, 0, start), source.expand(_with(x.shape, dim, end - start))]
            pieces.append(x.narrow(dim, end, size - end))
            return torch.cat([piece for piece in pieces if piece.shape[dim] != 0], dim)
    elif step == 1 and open_end and isinstance(start, int):
        # what stands before the part, and the part
        return torch.cat([x.narrow(dim, 0, start), source], dim) if start else source.clone()
    place = _positions(x, dim)
    behind = place - start
    inside = (place >= start) & (place < end)
    if step != 1:
        inside = inside & (behind % step == 0)
        behind = torch.div(behind, step, rounding_mode="floor")
    behind = torch.where(inside, behind, torch.zeros_like(behind))
    if not isinstance(source.shape[dim], int):
        # at the smallest sizes the part may be empty, of which no row can be taken, be it one that is not used
        source = torch.cat([source, x.narrow(dim, 0, 1)], dim)
    return torch.where(_along(inside, dim, x.dim()), source.index_select(dim, behind), x)


def _bound(bound: Any, size: Any) -> Any:
    return bound + size if isinstance(bound, int) and bound < 0 else bound


def _with(shape: Any, dim: int, size: Any) -> list[Any]:
    return [size if axis == dim else n for axis, n in enumerate(shape)]


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    dim = _axis(dim, x.dim())
    if x.dim() == 0:
        return source.reshape(())
    if index.dim() == 0:
        index = index.reshape(1)
    indices: list[Tensor | None] = [None] * dim
    moved = x.movedim(dim, 0), source.expand(_with(x.shape, dim, index.shape[0])).movedim(dim, 0)
    result = aten.index_put.default(moved[0], [index], moved[1]) if dim else None
    if result is not None:
        return result.movedim(0, dim)
    return aten.index_put.default(x, [*indices, index], moved[1])


def _index_fill(x: Tensor, dim: int, index: Tensor, value: Any) -> Any:
    if x.dim() == 0:
        return torch.full_like(x, value)
    dim = _axis(dim, x.dim())
    places = _positions(x, dim)
    index = torch.where(index < 0, index + x.shape[dim], index)
    chosen = (places.unsqueeze(1) == index.reshape(1, -1)).any(1)
    number = value.to(x.dtype) if isinstance(value, Tensor) else torch.full([], value, dtype=x.dtype, device=x.device)
    return torch.where(_along(chosen, dim, x.dim()), number, x)


def _index_put(x: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Any:
    masks = [index for index in indices if index is not None]
    if accumulate or len(masks) != 1 or len(indices) != 1 or masks[0].dtype is not torch.bool:
        return NotImplemented
    # how many values there are may depend on the mask, as in x[x > 0] *= 2
    if any(not isinstance(size, int) or size != 1 for size in values.shape):
        return NotImplemented
    mask = masks[0]
    chosen = mask.reshape([*mask.shape, *[1] * (x.dim() - mask.dim())])
    return torch.where(chosen, values.reshape([]).to(x.dtype), x)


def _scatter_value(x: Tensor, dim: int, index: Tensor, value: Any) -> Any:
    source = torch.full(index.shape, value, dtype=x.dtype, device=x.device)
    if x.dim() == 0:
        return source.reshape([])
    return aten.scatter.src(x, dim, index, source)


def _scatter(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    """A source may be longer than the index; TensorRT wants them alike, and at least one axis."""
    if x.dim() == 0:
        return source.reshape([]).clone()
    if all(isinstance(n, int) for n in (*index.shape, *source.shape)) and tuple(index.shape) != tuple(source.shape):
        for axis, size in enumerate(index.shape):
            source = source.narrow(axis, 0, size)
        return aten.scatter.src(x, dim, index, source)
    return NotImplemented


def _scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Any:
    """One scatter for each row of the source, as upstream has it, as long as they are few; else PyTorch adds."""
    if x.dim() == 0 or index.dim() == 0:
        return NotImplemented
    dim = _axis(dim, x.dim())
    count = index.shape[dim]
    if not isinstance(count, int) or count > _MOST_ROWS:
        return NotImplemented
    result = x
    for row in range(count):
        here = index.narrow(dim, row, 1)
        added = source.narrow(dim, row, 1)
        for axis, size in enumerate(index.shape):
            if axis != dim and isinstance(size, int):
                added = added.narrow(axis, 0, size)
        result = result + aten.scatter.src(torch.zeros_like(x), dim, here, added)
    return result


def _in_pytorch(*args: Any, **kwargs: Any) -> Any:
    """Not decomposed, and no converter has it."""
    return NotImplemented


ASSIGNMENT = {
    aten.copy.default: _copy,
    aten.select_scatter.default: _select_scatter,
    aten.slice_scatter.default: _slice_scatter,
    aten.index_copy.default: _index_copy,
    aten.index_fill.int_Scalar: _index_fill,
    aten.index_fill.int_Tensor: _index_fill,
    aten.index_put.default: _index_put,
    aten.scatter.value: _scatter_value,
    aten.scatter.src: _scatter,
    aten.scatter_add.default: _scatter_add,
    # upstream truncates means, and unrolls a loop over the source, however long
    aten.scatter_reduce.two: _in_pytorch,
}
"""Operator to its decomposition; ``NotImplemented`` leaves a case as it is."""
