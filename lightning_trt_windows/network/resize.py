"""Layers that sample between elements: resize and grid sample.

Sources: NVIDIA's operator documentation, the pages Resize and GridSample, and ``ResizeCoordinateTransformation`` in the
API documentation. Coordinates are computed in float64, those of the nearest element in float32, as kernels do it: at a
scale of 0.3 the fourth row lies at 3 / 0.3, which is 10 there and in PyTorch, and 9.9999996 in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_trt_windows.network.call import Call, layer

__all__ = ["grid_sample", "resize"]

_ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
    "HALF_UP": lambda x: torch.floor(x + 0.5),
    "HALF_DOWN": lambda x: torch.ceil(x - 0.5),
}


@layer("RESIZE")
def resize(call: Call) -> list[Tensor]:
    """Nearest, linear or cubic interpolation along each axis whose size changes."""
    own, value = call.layer, call.tensor()
    scales: Sequence[float] = []
    if call.has(1):
        sizes = call.integers(1)
    else:
        scales = list(own.scales) if own.scales is not None else []
        sizes = [math.floor(n * np.float32(s)) for n, s in zip(value.shape, scales)] if scales else list(own.shape)
    result = value.double()
    for axis, size in enumerate(sizes):
        if value.shape[axis] != size:
            scale = 1.0 / scales[axis] if scales else value.shape[axis] / size
            result = _along(call, result, axis, size, scale)
    return [result.to(value.dtype)]


def _along(call: Call, value: Tensor, axis: int, size: int, scale: float) -> Tensor:
    own, source = call.layer, value.shape[axis]
    at = _coordinates(call, source, size, scale)
    mode = own.resize_mode.name
    if mode == "NEAREST":
        index = _ROUNDING[own.nearest_rounding.name](at)
        return value.index_select(axis, index.clamp(0, source - 1).long())
    below = torch.floor(at)
    part = at - below
    if mode == "LINEAR":
        taps = [(0, 1 - part), (1, part)]
    elif mode == "CUBIC":
        a = own.cubic_coeff
        taps = [(-1, _far(a, part + 1)), (0, _near(a, part)), (1, _near(a, 1 - part)), (2, _far(a, 2 - part))]
    else:
        raise call.unknown(mode)
    weights = torch.zeros(size, source, dtype=torch.float64)
    for offset, weight in taps:
        weights.scatter_add_(1, (below + offset).clamp(0, source - 1).long()[:, None], weight[:, None])
    return torch.movedim(torch.movedim(value, axis, -1) @ weights.T, -1, axis)


def _coordinates(call: Call, source: int, size: int, scale: float) -> Tensor:
    """Where each element of the result lies in the source."""
    own, number = call.layer, torch.arange(size, dtype=torch.float64)
    if own.resize_mode.name == "NEAREST":
        number, scale = number.float(), float(np.float32(scale))
    if size == 1 and own.selector_for_single_pixel.name == "UPPER":
        return torch.zeros(1, dtype=torch.float64)
    kind = own.coordinate_transformation.name
    if kind == "ALIGN_CORNERS":
        return number * ((source - 1) / (size - 1) if size > 1 else 0)
    if kind == "ASYMMETRIC":
        return number * scale
    if kind == "HALF_PIXEL":
        return (number + 0.5) * scale - 0.5
    raise call.unknown(kind)


def _near(a: float, x: Tensor) -> Tensor:
    """Keys' cubic for distances up to 1."""
    return ((a + 2) * x - (a + 3)) * x * x + 1


def _far(a: float, x: Tensor) -> Tensor:
    """Keys' cubic for distances from 1 to 2."""
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a


@layer("GRID_SAMPLE")
def grid_sample(call: Call) -> list[Tensor]:
    """The input at the coordinates of a grid from -1 to 1."""
    own, value, grid = call.layer, call.tensor(0), call.tensor(1)
    mode = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}.get(own.interpolation_mode.name)
    padding = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}.get(own.sample_mode.name)
    if mode is None or padding is None:
        raise call.unknown(f"{own.interpolation_mode.name}, {own.sample_mode.name}")
    return [F.grid_sample(value.float(), grid.float(), mode, padding, own.align_corners).to(value.dtype)]
