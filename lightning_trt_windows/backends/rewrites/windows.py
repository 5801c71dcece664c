"""Views that overlap, diagonals and pooling windows, in words that convert right for sizes that vary.

``unfold`` and ``diagonal`` become lookups along an axis; upstream makes strides of them, those of the trace, and reads
an engine's contiguous output with them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

__all__ = ["WINDOWS"]

aten = torch.ops.aten


def _unfold(x: Tensor, dim: int, size: int, step: int) -> Any:
    if x.dim() == 0:
        return x.reshape(1).expand(size) if size else NotImplemented
    dim = dim + x.dim() if dim < 0 else dim
    count = (x.shape[dim] - size) // step + 1
    starts = torch.arange(count, device=x.device).unsqueeze(1) * step
    places = (starts + torch.arange(size, device=x.device)).reshape(-1)
    taken = x.index_select(dim, places)
    shape = [*x.shape[:dim], count, size, *x.shape[dim + 1 :]]
    return taken.reshape(shape).movedim(dim + 1, -1).clone()


def _diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    dim1, dim2 = dim1 % x.dim(), dim2 % x.dim()
    rows, columns = x.shape[dim1], x.shape[dim2]
    above, below = max(offset, 0), max(-offset, 0)
    count = torch.sym_min(rows - below, columns - above)
    if isinstance(count, int) and count <= 0:
        return NotImplemented
    if not statically_known_true(count >= 0):  # none, where the smallest sizes end before the diagonal begins
        count = count - torch.sym_min(count, 0)  # the larger of both; upstream converts no sym_max
    first = offset if offset >= 0 else -offset * columns
    places = torch.arange(count, device=x.device) * (columns + 1) + first
    rest = [axis for axis in range(x.dim()) if axis not in (dim1, dim2)]
    flat = x.permute([*rest, dim1, dim2]).reshape([*(x.shape[axis] for axis in rest), rows * columns])
    return flat.index_select(-1, places)


def _as_strided(x: Tensor, size: Any, stride: Any, storage_offset: Any = None) -> Any:
    """A lookup in what lies in memory, of a tensor that fills its memory in some order of its axes."""
    order = sorted(range(x.dim()), key=lambda axis: _hint(x.stride(axis)), reverse=True)
    expected: Any = 1
    for axis in reversed(order):
        if _hint(x.shape[axis]) != 1 and _hint(x.stride(axis)) != _hint(expected):
            return NotImplemented
        expected = expected * x.shape[axis]
    offset = 0 if storage_offset is None else storage_offset - x.storage_offset()
    last = _hint(offset) + sum((_hint(n) - 1) * _hint(s) for n, s in zip(size, stride))
    if _hint(offset) < 0 or last >= _hint(expected):
        return NotImplemented
    places: Any = torch.full([1] * max(len(size), 1), offset, dtype=torch.int64, device=x.device)
    for axis, (n, s) in enumerate(zip(size, stride)):
        step = torch.arange(n, device=x.device) * s
        places = places + step.reshape([-1 if a == axis else 1 for a in range(len(size))])
    flat = x.permute(order).reshape(-1)
    return flat.index_select(0, places.reshape(-1)).reshape(size)


def _hint(size: Any) -> int:
    """The size in the trace."""
    hint: Any = size.node.hint if isinstance(size, torch.SymInt) else size
    return int(hint)


def _channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, channels, *rest = x.shape
    return x.reshape([n, groups, channels // groups, *rest]).transpose(1, 2).reshape(x.shape)


# --- pooling


def _per_axis(given: Any, axes: int, default: Any = None) -> list[Any]:
    value: list[Any] = [given] if isinstance(given, int) else list(given)
    if not value:
        return list(default or [])
    return value * axes if len(value) == 1 else value


def _rounded_up(size: Any, kernel: int, stride: int, padding: int) -> int | None:
    """How much more padding at the end makes the number of windows round up; ``None`` where it depends on the size."""
    if isinstance(size, int):
        length = size + 2 * padding - kernel
        count = -(-length // stride) + 1
        # a window starts inside the tensor or in the padding before it
        if (count - 1) * stride >= size + padding:
            count -= 1
        return max((count - 1) * stride - length, 0)
    return stride - 1 if padding + stride <= kernel else None


def _max_pool(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, axes: int) -> Any:
    kernel = _per_axis(kernel, axes)
    stride, padding, dilation = _per_axis(stride, axes, kernel), _per_axis(padding, axes), _per_axis(dilation, axes)
    dilated = any(d != 1 for d in dilation)
    if not ceil_mode and not dilated:
        return NotImplemented
    sizes = x.shape[-axes:]
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    more = [_rounded_up(n, k, s, p) if ceil_mode else 0 for n, k, s, p in zip(sizes, extent, stride, padding)]
    if any(m is None for m in more) or not x.is_floating_point():
        return NotImplemented
    pads = [side for p, m in zip(reversed(padding), reversed(more)) for side in (p, p + m)]
    padded = torch.constant_pad_nd(x, pads, float("-inf")) if any(pads) else x
    if not dilated:
        pool = {2: _max_pool2d, 3: _max_pool3d}[axes]
        return pool(padded, kernel, stride)
    for axis, (k, s, d, e) in enumerate(zip(kernel, stride, dilation, extent)):
        dim = x.dim() - axes + axis
        length = (padded.shape[dim] - e) // s * s + 1
        pieces = [aten.slice.Tensor(padded, dim, i * d, i * d + length, s) for i in range(k)]
        padded = pieces[0]
        for piece in pieces[1:]:
            padded = torch.maximum(padded, piece)
    return padded


def _max_pool1d(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    flat = _max_pool2d(
        x.unsqueeze(-2),
        [1, *_per_axis(kernel, 1)],
        [1, *_per_axis(stride, 1, _per_axis(kernel, 1))],
        [0, *_per_axis(padding, 1)],
        [1, *_per_axis(dilation, 1)],
        ceil_mode,
    )
    return flat.squeeze(-2)


def _max_pool2d(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    pooled = _max_pool(x, kernel, stride, padding, dilation, ceil_mode, 2)
    if pooled is not NotImplemented:
        return pooled
    return aten.max_pool2d_with_indices.default(
        x, *(_per_axis(v, 2) for v in (kernel, stride, padding, dilation)), ceil_mode
    )[0]


def _max_pool3d(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    pooled = _max_pool(x, kernel, stride, padding, dilation, ceil_mode, 3)
    if pooled is not NotImplemented:
        return pooled
    return aten.max_pool3d_with_indices.default(
        x, *(_per_axis(v, 3) for v in (kernel, stride, padding, dilation)), ceil_mode
    )[0]


def _avg_pool(
    x: Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: Any,
    axes: int,
) -> Any:
    # PyTorch divides integers as integers, and TensorRT has no average of them
    if not x.is_floating_point() or (not ceil_mode and divisor_override is None):
        return NotImplemented
    kernel = _per_axis(kernel, axes)
    stride, padding = _per_axis(stride, axes, kernel), _per_axis(padding, axes)
    sizes = x.shape[-axes:]
    more = [_rounded_up(n, k, s, p) if ceil_mode else 0 for n, k, s, p in zip(sizes, kernel, stride, padding)]
    if any(m is None for m in more):
        return NotImplemented
    inner = [side for p in reversed(padding) for side in (p, p)]
    pads = [side for p, m in zip(reversed(padding), reversed(more)) for side in (p, p + m)]
    pool = {2: aten.avg_pool2d.default, 3: aten.avg_pool3d.default}[axes]

    def averages(tensor: Tensor, padding: list[int]) -> Any:
        return pool(torch.constant_pad_nd(tensor, padding, 0.0) if any(padding) else tensor, kernel, stride)

    mean = averages(x, pads)
    if divisor_override is not None:
        count = 1
        for k in kernel:
            count *= k
        return mean * (count / divisor_override)
    if not any(pads):
        return mean
    ones = torch.ones([1] * (x.dim() - axes) + list(sizes), dtype=x.dtype, device=x.device)
    if count_include_pad:
        ones = torch.constant_pad_nd(ones, inner, 1.0)
        pads = [side for m in reversed(more) for side in (0, m)]
    return mean / averages(ones, pads)


def _avg_pool2d(
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    return _avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override, 2)


def _avg_pool3d(
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    return _avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override, 3)


def _averages(size: Any, count: int, like: Tensor) -> Tensor:
    """The matrix whose rows average the windows of adaptive pooling: from floor(i n / k) to ceil((i + 1) n / k)."""
    rows = torch.arange(count, device=like.device)
    starts = torch.div(rows * size, count, rounding_mode="floor")
    ends = torch.div((rows + 1) * size + (count - 1), count, rounding_mode="floor")
    columns = torch.arange(size, device=like.device)
    inside = (columns >= starts.unsqueeze(1)) & (columns < ends.unsqueeze(1))
    return inside.to(like.dtype) / (ends - starts).unsqueeze(1).to(like.dtype)


def _adaptive_avg_pool(x: Tensor, output: Any) -> Any:
    axes = len(output)
    sizes = x.shape[-axes:]
    if all(count == 1 for count in output):
        return x.mean(list(range(-axes, 0)), keepdim=True)
    whole = all(isinstance(n, int) and isinstance(k, int) and n % k == 0 for n, k in zip(sizes, output))
    if whole:
        kernel = [n // k for n, k in zip(sizes, output)]
        pool: Any = {2: aten.avg_pool2d.default, 3: aten.avg_pool3d.default}[axes]
        return pool(x, kernel, kernel) if any(k != 1 for k in kernel) else x.clone()
    result = x
    for axis, (size, count) in enumerate(zip(sizes, output)):
        dim = x.dim() - axes + axis
        if count == 1:
            result = result.mean(dim, keepdim=True)
        elif not (isinstance(size, int) and size == count):
            # of the same rank, or upstream reshapes them to it, which takes a size of 0 for one that is to be kept
            weights = _averages(size, count, x)[(None,) * (x.dim() - 2)]
            if dim == x.dim() - 2:
                result = torch.matmul(weights, result)
            else:
                result = torch.matmul(result.transpose(dim, -1), weights.transpose(-1, -2)).transpose(dim, -1)
    return result


def _adaptive_max_pool(x: Tensor, output: Any) -> Any:
    """Windows one by one: their sizes differ. Where they are at most a hundred and known."""
    axes = len(output)
    sizes = x.shape[-axes:]
    known = all(isinstance(n, int) for n in (*sizes, *output))
    if not known or axes != 2 or output[0] * output[1] > 100:
        return NotImplemented
    values, places = [], []
    for i in range(output[0]):
        top, bottom = i * sizes[0] // output[0], -(-(i + 1) * sizes[0] // output[0])
        for j in range(output[1]):
            left, right = j * sizes[1] // output[1], -(-(j + 1) * sizes[1] // output[1])
            window = x[..., top:bottom, left:right].flatten(-2)
            values.append(window.amax(-1))
            place, width = window.argmax(-1), right - left
            row = torch.div(place, width, rounding_mode="floor")
            places.append((row + top) * sizes[1] + (place - row * width) + left)
    shape = [*x.shape[:-2], *output]
    return torch.stack(values, -1).reshape(shape), torch.stack(places, -1).reshape(shape)


WINDOWS = {
    aten.unfold.default: _unfold,
    aten.unfold_copy.default: _unfold,
    aten.diagonal.default: _diagonal,
    aten.diagonal_copy.default: _diagonal,
    aten.as_strided.default: _as_strided,
    aten.as_strided_copy.default: _as_strided,
    aten.channel_shuffle.default: _channel_shuffle,
    aten.native_channel_shuffle.default: _channel_shuffle,
    aten.max_pool1d.default: _max_pool1d,
    aten.max_pool2d.default: _max_pool2d,
    aten.max_pool3d.default: _max_pool3d,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.avg_pool3d.default: _avg_pool3d,
    aten._adaptive_avg_pool2d.default: _adaptive_avg_pool,
    aten._adaptive_avg_pool3d.default: _adaptive_avg_pool,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
}
"""Operator to its decomposition; ``NotImplemented`` leaves a case as it is."""
