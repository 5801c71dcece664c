"""Functions of single numbers that no converter has, or that it gets wrong, from those that TensorRT has.

Where cancellation would lose the digits of small numbers, another formula takes their place (log1p, expm1).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["POINTWISE"]

aten = torch.ops.aten

_SMALL = 0.5
"""Below this size the formulas for small numbers are used."""


def _floating(x: Tensor) -> Tensor:
    return x if x.is_floating_point() or x.is_complex() else x.to(torch.get_default_dtype())


def _log1p(x: Tensor) -> Any:
    if x.is_complex():
        return NotImplemented
    x = _floating(x)
    # log(1 + x) = 2 atanh(x / (2 + x))
    small = x.clamp(-_SMALL, _SMALL)
    return torch.where(x.abs() < _SMALL, 2.0 * torch.atanh(small / (small + 2.0)), torch.log(x + 1.0))


def _expm1(x: Tensor) -> Any:
    if x.is_complex():
        return NotImplemented
    x = _floating(x)
    # exp(x) - 1 = tanh(x / 2) (exp(x) + 1)
    exponential = torch.exp(x)
    return torch.where(x.abs() < _SMALL, torch.tanh(x * 0.5) * (exponential + 1.0), exponential - 1.0)


def _exp2(x: Tensor) -> Tensor:
    return torch.exp(_floating(x) * math.log(2.0))


def _softplus(x: Tensor, beta: Any = 1, threshold: Any = 20) -> Tensor:
    """The line from ``threshold`` on, which upstream leaves out; and without the overflow of a large exponential."""
    scaled = x * beta
    curve = (scaled.clamp(min=0.0) + torch.log1p(torch.exp(-scaled.abs()))) / beta
    return torch.where(scaled > threshold, x, curve)


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the floating type that PyTorch computes in."""
    dtype = torch.result_type(x, y)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    return x.to(dtype), y.to(dtype)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    x, y = _alike(x, y)
    x, y = x.abs(), y.abs()
    larger, smaller = torch.maximum(x, y), torch.minimum(x, y)
    ratio = smaller / torch.where(larger == 0, torch.ones_like(larger), larger)
    # infinite even beside NaN
    infinite = torch.isinf(x) | torch.isinf(y)
    return torch.where(infinite, torch.full_like(larger, float("inf")), larger * torch.sqrt(ratio * ratio + 1.0))


def _fmax(x: Tensor, y: Tensor) -> Tensor:
    if not torch.result_type(x, y).is_floating_point:
        return torch.maximum(x, y)
    x, y = _alike(x, y)
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.maximum(x, y)))


def _fmin(x: Tensor, y: Tensor) -> Tensor:
    if not torch.result_type(x, y).is_floating_point:
        return torch.minimum(x, y)
    x, y = _alike(x, y)
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.minimum(x, y)))


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle from the quotient of the smaller by the larger, turned into its octant; signed zeros count."""
    y, x = aten.broadcast_tensors.default(list(_alike(y, x)))
    height, width = y.abs(), x.abs()
    larger, smaller = torch.maximum(height, width), torch.minimum(height, width)
    both = torch.isinf(larger) & torch.isinf(smaller)
    ratio = smaller / torch.where(larger == 0, torch.ones_like(larger), larger)
    angle = torch.atan(torch.where(both, torch.ones_like(ratio), ratio))
    angle = torch.where(height > width, math.pi / 2 - angle, angle)
    angle = torch.where(_negative(x), math.pi - angle, angle)
    return torch.where(_negative(y), -angle, angle)


def _negative(x: Tensor) -> Tensor:
    """Whether the sign bit is set: 1 / -0. is -inf."""
    return (x < 0) | ((x == 0) & (torch.div(1.0, x) < 0))


def _signbit(x: Tensor) -> Tensor:
    return _negative(x) if x.is_floating_point() else x < 0


def _copysign(x: Tensor, y: Tensor) -> Tensor:
    x, y = _alike(x, y)
    size = x.abs()
    return torch.where(_negative(y), -size, size)


def _copysign_number(x: Tensor, y: Any) -> Tensor:
    size = _floating(x).abs()
    return -size if math.copysign(1.0, float(y)) < 0 else size


def _reciprocal(x: Tensor) -> Tensor:
    return torch.div(1.0, _floating(x))


def _rsqrt(x: Tensor) -> Tensor:
    return torch.div(1.0, torch.sqrt(_floating(x)))


def _power(x: Tensor, exponent: Any) -> Any:
    """Whole powers of integers by multiplication: TensorRT's power is of floating numbers."""
    if x.dtype is torch.bool and type(exponent) is bool:
        # True where the exponent is False: 0 ** 0 is 1
        return x.clone() if exponent else torch.ones_like(x)
    if x.is_floating_point() or x.is_complex() or type(exponent) is not int or not 1 <= exponent <= 8:
        return NotImplemented
    x = x if x.dtype is not torch.bool else x.to(torch.int64)
    result = x
    for _ in range(exponent - 1):
        result = result * x
    return result.clone() if exponent == 1 else result


def _ldexp(x: Tensor, exponent: Tensor) -> Any:
    """The power of two is in the type of the exponent, before the product is promoted, as in PyTorch.

    Whole exponents of floating numbers PyTorch adds to theirs, past what a power of two can be: that stays there.
    """
    if x.is_floating_point() and not exponent.is_floating_point():
        return NotImplemented
    return x * torch.pow(2.0, exponent)


def _bitwise(operator: Any) -> Any:
    def with_number(x: Tensor, number: Any) -> Any:
        if x.dtype is torch.bool and type(number) is not bool:
            x = x.to(torch.int64)
        return operator(x, torch.full([], number, dtype=x.dtype, device=x.device))

    return with_number


def _bitwise_after(operator: Any) -> Any:
    def with_number(number: Any, x: Tensor) -> Any:
        if x.dtype is torch.bool and type(number) is not bool:
            x = x.to(torch.int64)
        return operator(torch.full([], number, dtype=x.dtype, device=x.device), x)

    return with_number


def _floor_divide(x: Any, y: Any) -> Any:
    """Of integers by a broken number: what Python's ``//`` is, in floating numbers; a number may stand first."""
    if not isinstance(x, Tensor):
        dtype = torch.result_type(x, y)
        if dtype.is_floating_point and not y.is_floating_point():
            return torch.floor(torch.full([], x, dtype=dtype, device=y.device) / y.to(dtype))
        return aten.floor_divide.default(torch.full([], x, dtype=dtype, device=y.device), y.to(dtype))
    if x.is_floating_point() or not isinstance(y, float):
        return NotImplemented
    return torch.floor(x.to(torch.get_default_dtype()) / y)


def _truncated(x: Tensor) -> Any:
    """Upstream divides by 1, which rounds to the nearest number in the half types."""
    if not x.is_floating_point():
        return x.clone()
    return torch.where(x < 0, torch.ceil(x), torch.floor(x))


def _remainder(x: Tensor, y: Tensor) -> Any:
    """In float32, as PyTorch does: a quotient that bfloat16 rounds to a whole number leaves nothing over."""
    dtype = torch.result_type(x, y)
    if dtype not in (torch.float16, torch.bfloat16):
        return NotImplemented
    return torch.remainder(x.float(), y.float()).to(dtype)


def _remainder_of_number(x: Tensor, y: Any) -> Any:
    if x.dtype not in (torch.float16, torch.bfloat16):
        return NotImplemented
    return torch.remainder(x.float(), y).to(x.dtype)


def _remainder_by(number: Any, y: Tensor) -> Tensor:
    """No converter takes a number first."""
    return torch.remainder(torch.full([], number, dtype=torch.result_type(y, number), device=y.device), y)


def _grid_sample(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Any:
    """In float32, as CUDA does: coordinates in bfloat16 are off by pixels."""
    if x.dtype not in (torch.float16, torch.bfloat16):
        return NotImplemented
    return aten.grid_sampler_2d.default(x.float(), grid.float(), mode, padding, align_corners).to(x.dtype)


POINTWISE = {
    aten.grid_sampler_2d.default: _grid_sample,
    aten.floor_divide.Scalar: _floor_divide,
    aten.floor_divide.default: _floor_divide,
    aten.log1p.default: _log1p,
    aten.expm1.default: _expm1,
    aten.exp2.default: _exp2,
    aten.softplus.default: _softplus,
    aten.hypot.default: _hypot,
    aten.fmax.default: _fmax,
    aten.fmin.default: _fmin,
    aten.atan2.default: _atan2,
    aten.signbit.default: _signbit,
    aten.copysign.Tensor: _copysign,
    aten.copysign.Scalar: _copysign_number,
    aten.reciprocal.default: _reciprocal,
    aten.rsqrt.default: _rsqrt,
    aten.pow.Tensor_Scalar: _power,
    aten.ldexp.Tensor: _ldexp,
    aten.trunc.default: _truncated,
    aten.remainder.Tensor: _remainder,
    aten.remainder.Scalar: _remainder_of_number,
    aten.remainder.Scalar_Tensor: _remainder_by,
}
"""Operator to its decomposition; ``NotImplemented`` leaves a case as it is."""
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    _packet = getattr(aten, _name)
    POINTWISE[_packet.Scalar] = _bitwise(_packet.Tensor)
    POINTWISE[_packet.Scalar_Tensor] = _bitwise_after(_packet.Tensor)
