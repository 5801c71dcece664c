"""Views that overlap, and pooling in every form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

BATCH = Dim("batch", min=1, max=8)
X = torch.linspace(-2, 3, 20).reshape(4, 5)
PICTURE = torch.randn(2, 3, 9, 8)


class Strided(nn.Module):
    """An unfolded, permuted tensor between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(5, 5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.before(x).permute(0, 2, 1).unfold(-1, 4, 2))


def test_unfold() -> None:
    """The strides of the trace do not come into it."""
    check_values(Strided(), torch.randn(4, 16, 5), dims=({0: BATCH},))
    check_values(Strided(), torch.randn(4, 16, 5), dims=({0: BATCH, 1: Dim("length", min=6, max=20)},))
    check_values(lambda x: torch.as_strided(x * 1, (3, 3), (1, 2), 1) * 1, X)
    check_values(lambda x: F.unfold(x, 3, padding=1), PICTURE, dims=({0: BATCH},))


def test_diagonals() -> None:
    """Of square and other matrices, beside the middle, and of a size that varies."""
    check_values(lambda x: x.diagonal(-1) * 1, X)
    check_values(lambda x: x.diagonal(1, -2, -1) * 1, torch.randn(3, 4, 5), dims=({0: BATCH},))
    check_values(lambda x: (x @ x.T).diagonal() * 1, X, dims=({0: BATCH},))


@pytest.mark.parametrize(("output", "size"), [(7, 9), (6, 32), (4, 8), ((5, 2), 9), (1, 9)])
@pytest.mark.parametrize("varies", [False, True], ids=["fixed", "height varies"])
def test_adaptive_averages(output: Any, size: int, varies: bool) -> None:
    """Windows of several sizes, where the input is no multiple of the output."""
    dims = ({0: BATCH, 2: Dim("height", min=4, max=40)},) if varies else None
    check_values(nn.AdaptiveAvgPool2d(output), torch.randn(2, 3, size, size), dims=dims)


def test_other_adaptive_pooling() -> None:
    """Of one and three axes, and the largest."""
    check_values(nn.AdaptiveAvgPool1d(4), torch.randn(2, 3, 9))
    check_values(nn.AdaptiveAvgPool3d((2, 3, 2)), torch.randn(2, 3, 5, 7, 4))
    check_values(nn.AdaptiveMaxPool2d(3), PICTURE)
    check_values(lambda x: F.interpolate(x, size=(5, 7), mode="area") * 1, PICTURE)


POOLING = {
    "max, rounded up": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max, rounded up and padded": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "max, dilated": nn.MaxPool2d(3, 2, dilation=2, padding=1),
    "average, rounded up": nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    "average, rounded up and padded": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average, divisor": nn.AvgPool2d(2, divisor_override=3),
    "max": nn.MaxPool2d(3, 2, 1),
    "average": nn.AvgPool2d(3, 2, 1),
}


@pytest.mark.parametrize("name", POOLING)
def test_pooling(name: str) -> None:
    """In engines, whatever the rounding."""
    check_values(POOLING[name], PICTURE, dims=({0: BATCH},))


def test_pooling_of_other_axes() -> None:
    """Of one axis and of three."""
    check_values(nn.MaxPool1d(3, 2, ceil_mode=True), torch.randn(2, 3, 8))
    check_values(nn.AvgPool1d(3, 2, ceil_mode=True), torch.randn(2, 3, 8))
    check_values(nn.MaxPool3d(2, ceil_mode=True), torch.randn(2, 3, 5, 5, 5))


def test_channel_shuffle() -> None:
    """A reshape and a transposition."""
    check_values(nn.ChannelShuffle(2), torch.randn(2, 6, 4, 4), dims=({0: BATCH},))


def test_averages_of_integers() -> None:
    """PyTorch divides them as integers, which TensorRT does not."""
    numbers = torch.randint(-50, 50, (2, 3, 9, 8))
    may = ("aten.avg_pool2d.default",)
    check_values(lambda x: (F.avg_pool2d(x, 3, 1, 1, True, False, 2), x * 0.5), numbers, fallback=may)
    check_values(lambda x: (F.avg_pool1d(x[0], 6, 3, 2, True), x * 0.5), numbers, fallback=may)
    check_values(lambda x: (F.avg_pool2d(x, 2), x * 0.5), numbers, fallback=may)
