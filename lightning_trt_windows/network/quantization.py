"""Layers that quantise and dequantise: INT8 and FP8, by tensor, by channel, or by block.

Sources: NVIDIA's operator documentation, the pages Quantize and Dequantize:
``saturate(round_half_even(x / scale) + zero)`` and ``(x - zero) * scale``. FP4, MXFP8 and the dynamic layers have no
meaning here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_trt_windows.network.call import Call, layer

__all__ = ["dequantize", "quantize"]

_LARGEST_FP8 = 448.0
"""Largest value of float8_e4m3fn."""


def _spread(call: Call, parameter: Tensor, value: Tensor) -> Tensor:
    """Scale or zero point in a shape that broadcasts over ``value``."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    if parameter.dim() == value.dim() and parameter.shape != value.shape:  # by block
        for axis, (blocks, size) in enumerate(zip(parameter.shape, value.shape)):
            if blocks != size:
                parameter = parameter.repeat_interleave(-(-size // blocks), axis).narrow(axis, 0, size)
        return parameter
    if parameter.dim() == 1:
        shape = [1] * value.dim()
        shape[call.layer.axis % value.dim()] = -1
        return parameter.reshape(shape)
    return parameter


@layer("QUANTIZE")
def quantize(call: Call) -> list[Tensor]:
    """To INT8 or FP8."""
    value = call.tensor(0).float()
    scaled = value / _spread(call, call.tensor(1).float(), value)
    zero = _spread(call, call.tensor(2).float(), value) if call.has(2) else 0.0
    dtype = call.dtype()
    if dtype == torch.int8:
        return [(torch.round(scaled) + zero).clamp(-128, 127).to(dtype)]
    if dtype == torch.float8_e4m3fn:
        return [scaled.clamp(-_LARGEST_FP8, _LARGEST_FP8).to(dtype)]
    raise call.unknown(f"to {dtype}")


@layer("DEQUANTIZE")
def dequantize(call: Call) -> list[Tensor]:
    """From INT8 or FP8."""
    value = call.tensor(0).float()
    zero = _spread(call, call.tensor(2).float(), value) if call.has(2) else 0.0
    return [((value - zero) * _spread(call, call.tensor(1).float(), value)).to(call.dtype())]
