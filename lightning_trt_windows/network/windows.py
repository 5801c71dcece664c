"""Layers that slide a window: convolution, transposed convolution, pooling.

Sources: NVIDIA's operator documentation, the pages Convolution, Deconvolution and Pooling. Padding is explicit; the
mode says how a last window that does not fit is rounded. Sums are accumulated in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_trt_windows.network.call import Call, layer

__all__ = ["convolution", "deconvolution", "pooling"]


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _padding(call: Call) -> tuple[list[int], list[int], bool]:
    """Padding before and after each axis, and whether the number of windows is rounded up."""
    mode = call.layer.padding_mode.name
    if mode not in ("EXPLICIT_ROUND_DOWN", "EXPLICIT_ROUND_UP"):
        raise call.unknown(mode)
    return list(call.layer.pre_padding), list(call.layer.post_padding), mode == "EXPLICIT_ROUND_UP"


def _pad(before: list[int], after: list[int]) -> list[int]:
    """As ``torch.nn.functional.pad`` takes it: the last axis first."""
    return [size for axis in reversed(range(len(before))) for size in (before[axis], after[axis])]


def _kernel_and_bias(call: Call) -> tuple[Tensor, Tensor | None]:
    kernel = call.tensor(1) if call.has(1) else call.weight(call.layer.kernel, "KERNEL")
    bias = call.tensor(2) if call.has(2) else call.weight(call.layer.bias, "BIAS")
    if kernel is None:
        raise call.unknown("no kernel")
    return _wide(kernel), None if bias is None else _wide(bias).reshape(-1)


@layer("CONVOLUTION")
def convolution(call: Call) -> list[Tensor]:
    """Over the axes after the second one, by groups, with stride and dilation."""
    own, value = call.layer, call.tensor()
    kernel, bias = _kernel_and_bias(call)
    kernel = kernel.reshape(own.num_output_maps, value.shape[1] // own.num_groups, *own.kernel_size_nd)
    before, after, _ = _padding(call)
    source, padding = _wide(value), tuple(before)
    if before != after:
        source, padding = F.pad(source, _pad(before, after)), (0,) * len(before)
    function = (F.conv1d, F.conv2d, F.conv3d)[value.dim() - 3]
    arguments = (tuple(own.stride_nd), padding, tuple(own.dilation_nd), own.num_groups)
    return [function(source, kernel.to(source.dtype), bias, *arguments).to(value.dtype)]


@layer("DECONVOLUTION")
def deconvolution(call: Call) -> list[Tensor]:
    """The transposed convolution; padding is cut off its result."""
    own, value = call.layer, call.tensor()
    count = value.dim() - 2
    kernel, bias = _kernel_and_bias(call)
    kernel = kernel.reshape(value.shape[1], own.num_output_maps // own.num_groups, *own.kernel_size_nd)
    before, after, _ = _padding(call)
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[count - 1]
    source = _wide(value)
    result = function(
        source, kernel.to(source.dtype), None, tuple(own.stride_nd), 0, 0, own.num_groups, tuple(own.dilation_nd)
    )
    result = F.pad(result, _pad([-size for size in before], [-size for size in after]))
    if bias is not None:
        result = result + bias.reshape(1, -1, *[1] * count)
    return [result.to(value.dtype)]


@layer("POOLING")
def pooling(call: Call) -> list[Tensor]:
    """The largest element or the mean of each window over the last axes.

    A mean counts explicit padding unless the layer excludes it, and never what rounding up adds.
    """
    own, value = call.layer, call.tensor()
    kind = call.trt.IPoolingLayer.type.__get__(own).name
    if kind not in ("MAX", "AVERAGE"):
        raise call.unknown(kind)
    window, stride = list(own.window_size_nd), list(own.stride_nd)
    before, after, up = _padding(call)
    count = len(window)
    beyond = []
    for axis in range(count):
        size = value.shape[value.dim() - count + axis]
        room = size + before[axis] + after[axis] - window[axis]
        number = (-(-room // stride[axis]) if up else room // stride[axis]) + 1
        beyond.append((number - 1) * stride[axis] + window[axis] - size - before[axis])
    source = _wide(value)
    lead = value.shape[: value.dim() - count]
    flat = source.reshape(-1, 1, *value.shape[value.dim() - count :])
    if kind == "MAX":
        padded = F.pad(flat, _pad(before, beyond), value=-math.inf)
        function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[count - 1]
        result = function(padded, tuple(window), tuple(stride))
    else:
        padded = F.pad(flat, _pad(before, beyond))
        counted = torch.ones_like(flat[:1])
        if not own.average_count_excludes_padding:
            counted = F.pad(counted, _pad(before, after), value=1.0)
            beyond = [max(far - near, 0) for far, near in zip(beyond, after)]
            before = [0] * count
        counted = F.pad(counted, _pad(before, beyond))
        for axis, size in enumerate(padded.shape[2:], start=2):
            counted = counted.narrow(axis, 0, size)
        result = _mean(padded, window, stride) / _mean(counted, window, stride)
    return [result.reshape(*lead, *result.shape[2:]).to(value.dtype)]


def _mean(value: Tensor, window: list[int], stride: list[int]) -> Tensor:
    function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(window) - 1]
    return function(value, tuple(window), tuple(stride))
