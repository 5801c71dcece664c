"""Layers that compute over axes: reductions, softmax, running sums, normalisation.

Sources: NVIDIA's operator documentation, the pages Reduce, Softmax, Cumulative, Normalization and LRN. Engines
accumulate float16 and bfloat16 in float32, and round at the end; so does this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_trt_windows.network.call import Call, axes_of, layer

__all__ = ["cumulative", "local_response_normalization", "normalization", "reduce", "softmax"]


def _wide(value: Tensor) -> Tensor:
    """``value`` in the type that it is accumulated in."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


@layer("REDUCE")
def reduce(call: Call) -> list[Tensor]:
    """``ReduceOperation`` over the axes of a bit mask."""
    value, keep, name = call.tensor(), call.layer.keep_dims, call.layer.op.name
    axes = axes_of(call.layer.axes, value.dim())
    if call.layer.axes >> value.dim():
        call.warn(f"its axes {call.layer.axes:b} are not those of {value.dim()}")
    wide = _wide(value)
    if name == "SUM":
        result = wide.sum(axes, keepdim=keep)
    elif name == "AVG":
        result = (wide if wide.is_floating_point() else wide.double()).mean(axes, keepdim=keep)
    elif name == "MAX":
        result = wide.amax(axes, keepdim=keep)
    elif name == "MIN":
        result = wide.amin(axes, keepdim=keep)
    elif name == "PROD":
        result = wide
        for axis in sorted(axes, reverse=True):
            result = result.prod(axis, keepdim=keep)
    else:
        raise call.unknown(name)
    return [result.to(value.dtype)]


@layer("SOFTMAX")
def softmax(call: Call) -> list[Tensor]:
    """Along the one axis of a bit mask."""
    value = call.tensor()
    axes = axes_of(call.layer.axes, value.dim())
    if len(axes) != 1:
        raise call.unknown(f"axes {axes}")
    return [torch.softmax(_wide(value), axes[0]).to(value.dtype)]


@layer("CUMULATIVE")
def cumulative(call: Call) -> list[Tensor]:
    """Running sums along an axis, from either end, with or without the element itself."""
    if call.layer.op.name != "SUM":
        raise call.unknown(call.layer.op)
    value, axis = call.tensor(), call.integers(1)[0]
    source = value.flip(axis) if call.layer.reverse else value
    result = torch.cumsum(_wide(source), axis).to(value.dtype)
    if call.layer.exclusive:
        result = result - source
    return [result.flip(axis) if call.layer.reverse else result]


@layer("NORMALIZATION")
def normalization(call: Call) -> list[Tensor]:
    """Zero mean and variance one over axes or over groups of channels, then scale and bias.

    Of groups, the first form of the layer has a scale and a bias for each group, the second one for each channel.
    """
    own = call.layer
    value, scale, bias = call.tensor(0), call.tensor(1), call.tensor(2)
    wide = _wide(value)
    if own.num_groups > 1:
        grouped = wide.reshape(value.shape[0], own.num_groups, -1)
        result = _normal(grouped, [-1], own.epsilon).reshape(value.shape)
        if not own.is_v2 and scale.shape[1] == own.num_groups != value.shape[1]:
            repeats = value.shape[1] // own.num_groups
            scale, bias = scale.repeat_interleave(repeats, 1), bias.repeat_interleave(repeats, 1)
    else:
        result = _normal(wide, axes_of(own.axes, value.dim()), own.epsilon)
    return [(result * scale.to(wide.dtype) + bias.to(wide.dtype)).to(value.dtype)]


def _normal(value: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = value - value.mean(axes, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(axes, keepdim=True) + epsilon)


@layer("LRN")
def local_response_normalization(call: Call) -> list[Tensor]:
    """Each element divided by ``(k + alpha / window * sum of squares of its neighbours' channels) ** beta``."""
    own, value = call.layer, call.tensor()
    return [torch.nn.functional.local_response_norm(value, own.window_size, own.alpha, own.beta, own.k)]
