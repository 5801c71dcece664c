"""Reductions, and what splits and orders, in words that convert right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["REDUCTIONS"]

aten = torch.ops.aten

_MOST_BOUNDARIES = 4096
"""``bucketize`` compares with every boundary; past this many a search in PyTorch is faster."""
_LONGEST_PRODUCT = 4096


def _numbers(x: Tensor) -> Tensor:
    """Flags as numbers: an order of flags is not known to the search for a place."""
    return x.to(torch.int32) if x.dtype is torch.bool else x


def _max_dim(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    return (
        (x.amax(dim, keepdim), _numbers(x).argmax(dim, keepdim))
        if x.dim()
        else (x.clone(), torch.zeros_like(x, dtype=torch.int64))
    )


def _min_dim(x: Tensor, dim: int, keepdim: bool = False) -> Any:
    return (
        (x.amin(dim, keepdim), _numbers(x).argmin(dim, keepdim))
        if x.dim()
        else (x.clone(), torch.zeros_like(x, dtype=torch.int64))
    )


def _axes(x: Tensor, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.dim()))
    return [d + x.dim() if d < 0 else d for d in ([dim] if isinstance(dim, int) else dim)]


def _var_mean(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """The number of elements stays a size that may vary; upstream turns it into a number."""
    if x.is_complex() or x.dim() == 0:
        return NotImplemented
    axes = _axes(x, dim)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count: Any = 1
    for axis in axes:
        count = count * x.shape[axis]
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    squares = (centred * centred).sum(axes, keepdim=keepdim)
    divisor = count - (1 if correction is None else correction)
    if not isinstance(divisor, torch.SymInt):
        divisor = max(divisor, 0)
        variance = squares / divisor if divisor else squares / torch.zeros([], dtype=wide.dtype)
    else:
        variance = squares / divisor
    if not keepdim:
        mean = mean.squeeze(axes)
    return variance.to(x.dtype), mean.to(x.dtype)


def _var(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    found = _var_mean(x, dim, correction=correction, keepdim=keepdim)
    return found if found is NotImplemented else found[0]


def _std(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    found = _var_mean(x, dim, correction=correction, keepdim=keepdim)
    return found if found is NotImplemented else found[0].sqrt()


def _std_mean(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    found = _var_mean(x, dim, correction=correction, keepdim=keepdim)
    return found if found is NotImplemented else (found[0].sqrt(), found[1])


def _all_dim(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if x.dim() == 0:
        return x != 0
    return (x == 0).any(dim, keepdim).logical_not()


def _all_dims(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if x.dim() == 0:
        return x != 0
    result = x == 0
    for axis in sorted(_axes(x, dim), reverse=True):
        result = result.any(axis, keepdim)
    return result.logical_not()


def _all(x: Tensor) -> Tensor:
    return (x != 0) if x.dim() == 0 else (x == 0).any().logical_not()


def _unsafe_split(x: Tensor, size: Any, dim: int = 0) -> Any:
    return aten.split.Tensor(x, size, dim)


def _unsafe_split_with_sizes(x: Tensor, sizes: Any, dim: int = 0) -> Any:
    return aten.split_with_sizes.default(x, sizes, dim)


def _bucketize(x: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Any:
    if boundaries.dim() != 1 or not isinstance(boundaries.shape[0], int) or boundaries.shape[0] > _MOST_BOUNDARIES:
        return NotImplemented
    values = x.unsqueeze(-1)
    # not "above", so that NaN comes last as in eager
    above = boundaries > values if right else boundaries >= values
    return above.logical_not().sum(-1).to(torch.int32 if out_int32 else torch.int64)


def _isin(x: Tensor, values: Tensor, *, assume_unique: bool = False, invert: bool = False) -> Any:
    if not isinstance(values.numel(), int) or values.numel() > _MOST_BOUNDARIES:
        return NotImplemented
    found = (x.unsqueeze(-1) == values.reshape(-1)).any(-1)
    return found.logical_not() if invert else found


def _cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Any:
    """Products over spans that double, so that a sequence of 1000 takes ten steps."""
    if x.dim() == 0 or not isinstance(x.shape[dim], int) or not 0 < x.shape[dim] <= _LONGEST_PRODUCT:
        return NotImplemented
    dim = dim + x.dim() if dim < 0 else dim
    given = dtype or (x.dtype if x.is_floating_point() else torch.int64)
    result = x.to(given)
    size, span = x.shape[dim], 1
    while span < size:
        shifted = torch.cat([torch.ones_like(result.narrow(dim, 0, span)), result.narrow(dim, 0, size - span)], dim)
        result = result * shifted
        span *= 2
    return result


def _cdist(x: Tensor, y: Tensor, p: float, compute_mode: Any = None) -> Any:
    difference = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if p == 0:
        return (difference != 0).to(x.dtype).sum(-1)
    if p == 1:
        return difference.sum(-1)
    if p == 2:
        return (difference * difference).sum(-1).sqrt()
    if p == float("inf"):
        return difference.amax(-1)
    return difference.pow(p).sum(-1).pow(1.0 / p)


def _gather(x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Any:
    """One axis longer than the index is cut: TensorRT wants them alike but for the gathered one."""
    if x.dim() == 0 or index.dim() == 0:
        return NotImplemented
    dim = dim + x.dim() if dim < 0 else dim
    sizes = [(axis, n, x.shape[axis]) for axis, n in enumerate(index.shape) if axis != dim]
    shorter = [(axis, n) for axis, n, m in sizes if isinstance(n, int) and isinstance(m, int) and n < m]
    if not shorter:
        return NotImplemented
    for axis, size in shorter:
        x = x.narrow(axis, 0, size)
    return aten.gather.default(x, dim, index)


REDUCTIONS = {
    aten.max.dim: _max_dim,
    aten.min.dim: _min_dim,
    aten.var.correction: _var,
    aten.std.correction: _std,
    aten.var_mean.correction: _var_mean,
    aten.std_mean.correction: _std_mean,
    aten.all.dim: _all_dim,
    aten.all.dims: _all_dims,
    aten.all.default: _all,
    aten.unsafe_split.Tensor: _unsafe_split,
    aten.unsafe_split_with_sizes.default: _unsafe_split_with_sizes,
    aten.bucketize.Tensor: _bucketize,
    aten.isin.Tensor_Tensor: _isin,
    aten.cumprod.default: _cumprod,
    aten._cdist_forward.default: _cdist,
    aten.gather.default: _gather,
}
"""Operator to its decomposition; ``NotImplemented`` leaves a case as it is."""
