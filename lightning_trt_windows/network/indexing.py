"""Layers that take or place elements by index.

Sources: NVIDIA's operator documentation, the pages Gather, Scatter, OneHot, TopK and NonZero. Indices outside of their
axis are undefined there, negative ones are counted from the end on static axes only; both are noted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_trt_windows.network.call import Call, axes_of, layer

__all__ = ["gather", "non_zero", "one_hot", "scatter", "topk"]

_MOST = 3840
"""Largest ``k`` of TopK that TensorRT documents."""


def _checked(call: Call, index: Tensor, size: int) -> Tensor:
    """Indices as PyTorch takes them; what the documentation leaves open is noted."""
    if not index.numel():
        return index.long()
    if int(index.min()) < 0:
        call.warn(f"a negative index, {int(index.min())}")
        index = torch.where(index < 0, index + size, index)
    if int(index.min()) < 0 or int(index.max()) >= size:
        call.warn(f"an index outside of 0..{size - 1}: {int(index.min())}..{int(index.max())}")
    return index.clamp(0, max(size - 1, 0)).long()


@layer("GATHER")
def gather(call: Call) -> list[Tensor]:
    """``GatherMode``: DEFAULT takes slices along an axis, ELEMENT elements, ND slices by index tuples."""
    data, indices, mode = call.tensor(0), call.tensor(1), call.layer.mode.name
    leading = call.layer.num_elementwise_dims
    if mode == "DEFAULT":
        axis = call.layer.axis
        indices = _checked(call, indices, data.shape[axis])
        if not leading:
            return [_taken(data, indices, axis)]
        rows = data.reshape(-1, *data.shape[leading:]), indices.reshape(-1, *indices.shape[leading:])
        taken = torch.stack([_taken(row, index, axis - leading) for row, index in zip(*rows)])
        return [taken.reshape([*data.shape[:leading], *taken.shape[1:]])]
    if mode == "ELEMENT":
        axis = call.layer.axis
        return [torch.gather(data, axis, _checked(call, indices, data.shape[axis]))]
    if mode != "ND":
        raise call.unknown(mode)
    if not leading:
        return [_by_tuples(call, data, indices)]
    lead = data.shape[:leading]
    pairs = zip(data.reshape(-1, *data.shape[leading:]), indices.reshape(math.prod(lead), *indices.shape[leading:]))
    found = torch.stack([_by_tuples(call, row, index) for row, index in pairs])
    return [found.reshape([*lead, *found.shape[1:]])]


def _taken(data: Tensor, index: Tensor, axis: int) -> Tensor:
    axis %= data.dim()
    return data.index_select(axis, index.reshape(-1)).reshape(
        [*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]]
    )


def _by_tuples(call: Call, data: Tensor, indices: Tensor) -> Tensor:
    parts = [_checked(call, indices[..., axis], data.shape[axis]) for axis in range(indices.shape[-1])]
    return data[tuple(parts)]


@layer("SCATTER")
def scatter(call: Call) -> list[Tensor]:
    """``ScatterMode``: ELEMENT places elements along an axis, ND slices by index tuples."""
    data, indices, updates = call.tensor(0), call.tensor(1), call.tensor(2)
    if call.layer.mode.name == "ELEMENT":
        axis = call.layer.axis
        return [data.scatter(axis, _checked(call, indices, data.shape[axis]), updates)]
    if call.layer.mode.name != "ND":
        raise call.unknown(call.layer.mode)
    result = data.clone()
    parts = tuple(_checked(call, indices[..., axis], data.shape[axis]) for axis in range(indices.shape[-1]))
    result[parts] = updates
    return [result]


@layer("ONE_HOT")
def one_hot(call: Call) -> list[Tensor]:
    """The second of two values where an axis of the given depth has the index, the first elsewhere."""
    indices, values, depth, axis = call.tensor(0), call.tensor(1), call.integers(2)[0], call.layer.axis
    hot = F.one_hot(torch.where(indices < 0, indices + depth, indices).long(), depth).bool()
    result = torch.where(hot, values[1], values[0])
    return [torch.movedim(result, -1, axis if axis >= 0 else axis + result.dim())]


@layer("TOPK")
def topk(call: Call) -> list[Tensor]:
    """The largest or smallest elements along an axis, in order, and their indices; equal ones in their own order."""
    value = call.tensor()
    count = call.integers(1)[0] if call.has(1) else call.layer.k
    (axis,) = axes_of(call.layer.axes, value.dim())
    if count > value.shape[axis]:
        raise call.impossible(f"{count} of {value.shape[axis]} elements")
    if count > _MOST:
        call.warn(f"more than {_MOST} elements, which TensorRT does not promise")
    ordered, index = torch.sort(value, dim=axis, descending=call.layer.op.name == "MAX", stable=True)
    return [ordered.narrow(axis, 0, count), index.narrow(axis, 0, count).to(call.dtype(1))]


@layer("NON_ZERO")
def non_zero(call: Call) -> list[Tensor]:
    """Indices of the elements that are not zero, a column each, in row-major order."""
    return [torch.nonzero(call.tensor()).T.contiguous().to(call.dtype())]
