"""Layers that make, read or change shapes, and move elements without computing.

Sources: NVIDIA's operator documentation, the pages Constant, Shape, Shuffle, Squeeze, Unsqueeze, Slice, Concatenation,
Padding, Fill and ReverseSequence.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_trt_windows.network.call import Call, layer

__all__ = [
    "assertion",
    "concatenation",
    "constant",
    "fill",
    "padding",
    "reverse_sequence",
    "shape",
    "shuffle",
    "slice_",
    "squeeze",
    "unsqueeze",
]


@layer("CONSTANT")
def constant(call: Call) -> list[Tensor]:
    """The weights in the layer's shape; bfloat16 comes as whole numbers of the same bits."""
    dtype, shape = call.dtype(), tuple(call.layer.shape)
    value = call.weight(call.layer.weights, "CONSTANT")
    if value is None:
        return [torch.empty(shape, dtype=dtype)]
    if dtype == torch.bfloat16 and value.dtype in (torch.int16, torch.uint16):
        value = value.view(dtype)
    return [value.to(dtype).reshape(shape)]


@layer("SHAPE")
def shape(call: Call) -> list[Tensor]:
    """The shape of the input, as int64."""
    return [torch.tensor(tuple(call.tensor().shape), dtype=torch.int64)]


@layer("SHUFFLE")
def shuffle(call: Call) -> list[Tensor]:
    """A transposition, a reshape, and another transposition. A size of 0 may stand for the input's own."""
    own = call.layer
    value = _permuted(call.tensor(), own.first_transpose)
    dims = call.integers(1) if call.has(1) else _reshape_dims(call, value)
    if dims is not None:
        if own.zero_is_placeholder:
            dims = [value.shape[axis] if size == 0 else size for axis, size in enumerate(dims)]
        value = value.reshape(dims)
    return [_permuted(value, own.second_transpose)]


def _permuted(value: Tensor, permutation: object) -> Tensor:
    return value if permutation is None else value.permute(tuple(permutation)[: value.dim()])  # type: ignore[arg-type]


def _reshape_dims(call: Call, value: Tensor) -> list[int] | None:
    """The shape that stands in the layer; ``None`` where it only transposes."""
    try:
        dims = call.layer.reshape_dims
        if dims is None:
            return None
        found = [int(size) for size in dims]
    except ValueError:  # the bindings' way to say that there is none
        return None
    if found:
        return found
    # no sizes are a scalar's shape, or not set: the output tells
    return [] if value.numel() == 1 and call.rank() == 0 else None


@layer("SQUEEZE")
def squeeze(call: Call) -> list[Tensor]:
    """Without the axes that the second input lists, which have the size one."""
    value = call.tensor()
    for axis in sorted((axis % value.dim() for axis in call.integers(1)), reverse=True):
        if value.shape[axis] != 1:
            raise call.impossible(f"axis {axis} of {tuple(value.shape)} has not the size 1")
        value = value.squeeze(axis)
    return [value]


@layer("UNSQUEEZE")
def unsqueeze(call: Call) -> list[Tensor]:
    """With axes of size one where the second input says, counted in the output."""
    value, axes = call.tensor(), call.integers(1)
    rank = value.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return [value]


@layer("CONCATENATION")
def concatenation(call: Call) -> list[Tensor]:
    """The inputs one after the other along an axis."""
    return [torch.cat([call.tensor(index) for index in range(call.layer.num_inputs)], call.layer.axis)]


@layer("SLICE")
def slice_(call: Call) -> list[Tensor]:
    """``size`` elements from ``start`` on in steps of ``stride``; the mode says what lies beyond the bounds."""
    value, mode = call.tensor(), call.layer.mode.name
    if not value.dim():  # seen on an H100 to give another number
        call.warn("a slice of a tensor without axes")
    start, size = call.integers_or(1, "start"), call.integers_or(2, "shape")
    stride = call.integers_or(3, "stride")
    axes = call.integers(5) if call.has(5) else range(value.dim())
    fill = call.tensor(4).reshape(-1)[0] if call.has(4) else None
    for axis, first, count, step in zip(axes, start, size, stride):
        value = _sliced(call, value, axis, (first, count, step), mode, fill)
    return [value]


def _sliced(
    call: Call, value: Tensor, axis: int, which: tuple[int, int, int], mode: str, fill: Tensor | None
) -> Tensor:
    first, count, step = which
    size = value.shape[axis]
    if count < 0:
        raise call.impossible(f"a slice of {count} elements along axis {axis}")
    last = first + step * (count - 1)
    inside = count == 0 or (min(first, last) >= 0 and max(first, last) < size)
    if inside and step == 1:
        return value.narrow(axis, first if count else 0, count)
    index = first + step * torch.arange(count)
    if inside:
        return value.index_select(axis, index)
    if mode == "STRICT_BOUNDS":
        raise call.impossible(f"start {first}, size {count}, stride {step} are out of bounds of {tuple(value.shape)}")
    if mode == "CLAMP":
        return value.index_select(axis, index.clamp(0, size - 1))
    if mode == "WRAP":
        return value.index_select(axis, index % size)
    if mode == "REFLECT":
        period = max(2 * (size - 1), 1)
        index = index % period
        return value.index_select(axis, torch.where(index >= size, period - index, index))
    if mode != "FILL":
        raise call.unknown(mode)
    shape = [1] * value.dim()
    shape[axis] = count
    beyond = ((index < 0) | (index >= size)).reshape(shape)
    if size:
        taken = value.index_select(axis, index.clamp(0, size - 1))
    else:
        taken = value.new_zeros([count if d == axis else n for d, n in enumerate(value.shape)])
    filling = torch.zeros((), dtype=value.dtype) if fill is None else fill.to(value.dtype)
    return torch.where(beyond, filling, taken)


@layer("PADDING")
def padding(call: Call) -> list[Tensor]:
    """Zeros before and after the last axes; negative padding takes elements away."""
    before, after = list(call.layer.pre_padding_nd), list(call.layer.post_padding_nd)
    return [F.pad(call.tensor(), [n for axis in reversed(range(len(before))) for n in (before[axis], after[axis])])]


@layer("FILL")
def fill(call: Call) -> list[Tensor]:
    """LINSPACE: ``alpha`` at the origin, and ``beta`` more with each step along an axis. Random fills have no value."""
    own = call.layer
    if own.operation.name != "LINSPACE":
        raise call.unknown(f"random fill {own.operation.name}")
    sizes = call.integers_or(0, "shape")
    if any(size < 0 for size in sizes):
        raise call.impossible(f"a fill of shape {sizes}")
    start = (call.tensor(1) if call.has(1) else torch.tensor(own.alpha)).reshape(()).double()
    steps = (call.tensor(2) if call.has(2) else torch.tensor(own.beta)).reshape(-1).double()
    result = torch.zeros(sizes, dtype=torch.float64) + start
    if len(steps) != len(sizes):
        call.warn(f"it has {len(steps)} steps for {len(sizes)} axes")
    for axis, step in enumerate(steps.tolist()):
        along = [1] * len(sizes)
        along[axis] = -1
        result = result + (torch.arange(sizes[axis], dtype=torch.float64) * step).reshape(along)
    return [result.to(call.dtype())]


@layer("REVERSE_SEQUENCE")
def reverse_sequence(call: Call) -> list[Tensor]:
    """The first elements of each sequence in reverse order, as many as its length says."""
    value, lengths = call.tensor(0), call.integers(1)
    batch, along = call.layer.batch_axis, call.layer.sequence_axis
    result = value.clone()
    for row, length in enumerate(lengths):
        source = value.select(batch, row)
        axis = along - (along > batch)
        part = source.narrow(axis, 0, length).flip(axis)
        result.select(batch, row).narrow(axis, 0, length).copy_(part)
    return [result]


@layer("ASSERTION")
def assertion(call: Call) -> list[Tensor]:
    """Nothing; the engine refuses to run where the condition is false."""
    if not bool(call.tensor().all()):
        raise call.impossible(f"its condition is false: {call.layer.message}")
    return []
