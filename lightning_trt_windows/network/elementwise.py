"""Layers that compute element by element.

Sources: NVIDIA's operator documentation (https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/),
the page of each layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_trt_windows.network.call import Call, layer

__all__ = ["activation", "cast", "elementwise", "identity", "parametric_relu", "scale", "select", "unary"]

_LARGEST_INT32 = 2**31

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "ABS": torch.abs, "ACOS": torch.acos, "ACOSH": torch.acosh, "ASIN": torch.asin, "ASINH": torch.asinh,
    "ATAN": torch.atan, "ATANH": torch.atanh, "CEIL": torch.ceil, "COS": torch.cos, "COSH": torch.cosh,
    "ERF": torch.erf, "EXP": torch.exp, "FLOOR": torch.floor, "ISINF": torch.isinf, "ISNAN": torch.isnan,
    "LOG": torch.log, "NEG": torch.neg, "NOT": torch.logical_not, "RECIP": torch.reciprocal, "ROUND": torch.round,
    "SIGN": torch.sign, "SIN": torch.sin, "SINH": torch.sinh, "SQRT": torch.sqrt, "TAN": torch.tan,
}  # fmt: skip
"""Round is half to even, as in PyTorch."""

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add, "SUB": torch.sub, "PROD": torch.mul, "MAX": torch.maximum, "MIN": torch.minimum,
    "AND": torch.bitwise_and, "OR": torch.bitwise_or, "XOR": torch.bitwise_xor, "EQUAL": torch.eq,
    "GREATER": torch.gt, "LESS": torch.lt,
}  # fmt: skip


@layer("IDENTITY")
def identity(call: Call) -> list[Tensor]:
    """The input in the type of the output."""
    return [call.tensor().to(call.dtype())]


@layer("CAST")
def cast(call: Call) -> list[Tensor]:
    """The input in another type; numbers that do not fit int32 are noted."""
    value, to = call.tensor(), call.torch_dtype(call.layer.to_type)
    beyond = to == torch.int32 and value.dtype in (torch.int64, torch.float32) and value.numel()
    if beyond and value.double().abs().max() >= _LARGEST_INT32:
        call.warn("a cast to int32 overflows")
    return [value.to(to)]


@layer("UNARY")
def unary(call: Call) -> list[Tensor]:
    """``UnaryOperation``."""
    name = call.layer.op.name
    if name not in _UNARY:
        raise call.unknown(name)
    return [_UNARY[name](call.tensor())]


@layer("ELEMENTWISE")
def elementwise(call: Call) -> list[Tensor]:
    """``ElementWiseOperation``, with broadcasting of axes of size one.

    DIV of integers truncates towards zero, FLOOR_DIV rounds down.
    """
    one, other, name = call.tensor(0), call.tensor(1), call.layer.op.name
    if one.dim() != other.dim():
        call.warn(f"its inputs have {one.dim()} and {other.dim()} axes")
    if one.dtype != other.dtype:
        call.warn(f"its inputs are {one.dtype} and {other.dtype}")
    if any(p != q and 1 not in (p, q) for p, q in zip(one.shape, other.shape)):
        raise call.impossible(f"{name} of shapes {tuple(one.shape)} and {tuple(other.shape)}")
    integers = not one.is_floating_point()
    if name == "DIV":
        return [torch.div(one, other, rounding_mode="trunc") if integers else one / other]
    if name == "FLOOR_DIV":
        return [torch.div(one, other, rounding_mode="floor")]
    if name == "POW":
        return [torch.pow(one.double(), other.double()).to(one.dtype) if integers else torch.pow(one, other)]
    if name not in _BINARY:
        raise call.unknown(name)
    return [_BINARY[name](one, other)]


@layer("ACTIVATION")
def activation(call: Call) -> list[Tensor]:
    """``ActivationType``, with its parameters alpha and beta."""
    # the layer has two attributes called type: its own, and that of every layer, which hides it
    name = call.trt.IActivationLayer.type.__get__(call.layer).name
    value, alpha, beta = call.tensor(), call.layer.alpha, call.layer.beta
    if name == "SOFTPLUS":
        return [(alpha * torch.log1p(torch.exp(beta * value.double()))).to(value.dtype)]
    exponential = torch.where(value > 0, value, alpha * torch.expm1(value))
    known: dict[str, Callable[[], Tensor]] = {
        "RELU": lambda: F.relu(value),
        "SIGMOID": lambda: torch.sigmoid(value),
        "TANH": lambda: torch.tanh(value),
        "LEAKY_RELU": lambda: F.leaky_relu(value, alpha),
        "ELU": lambda: exponential,
        "SELU": lambda: beta * exponential,
        "SOFTSIGN": lambda: F.softsign(value),
        "CLIP": lambda: value.clamp(alpha, beta),
        "HARD_SIGMOID": lambda: (alpha * value + beta).clamp(0, 1),
        "SCALED_TANH": lambda: alpha * torch.tanh(beta * value),
        "THRESHOLDED_RELU": lambda: torch.where(value > alpha, value, torch.zeros_like(value)),
        "GELU_ERF": lambda: F.gelu(value),
        "GELU_TANH": lambda: F.gelu(value, approximate="tanh"),
    }
    if name not in known:
        raise call.unknown(name)
    return [known[name]()]


@layer("PARAMETRIC_RELU")
def parametric_relu(call: Call) -> list[Tensor]:
    """The input where it is positive, and the input times the slope elsewhere."""
    value, slope = call.tensor(0), call.tensor(1)
    return [torch.where(value > 0, value, value * slope)]


@layer("SELECT")
def select(call: Call) -> list[Tensor]:
    """The second input where the first one is true, the third one elsewhere."""
    condition, one, other = call.tensor(0), call.tensor(1), call.tensor(2)
    if len({condition.dim(), one.dim(), other.dim()}) > 1:
        call.warn(f"its inputs have {condition.dim()}, {one.dim()} and {other.dim()} axes")
    return [torch.where(condition, one, other)]


@layer("SCALE")
def scale(call: Call) -> list[Tensor]:
    """``(input * scale + shift) ** power``, for all elements, by channel, or element by element."""
    value, mode = call.tensor(), call.layer.mode.name

    def parameter(name: str, default: float) -> Tensor:
        weights = call.weight(getattr(call.layer, name), name.upper())
        if weights is None:
            return torch.tensor(default, dtype=value.dtype)
        weights = weights.to(value.dtype)
        if mode == "CHANNEL":
            shape = [1] * value.dim()
            shape[call.layer.channel_axis] = -1
            return weights.reshape(shape)
        return weights.reshape(()) if mode == "UNIFORM" else weights.reshape(value.shape)

    result = value * parameter("scale", 1.0) + parameter("shift", 0.0)
    power = parameter("power", 1.0)
    return [result if bool((power == 1).all()) else result**power]
