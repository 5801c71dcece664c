"""Floating numbers made of sizes that vary give in an engine what they give in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor
from torch.export import Dim
from torch.nn import functional as F

X = torch.linspace(-2, 3, 20).reshape(4, 5)
LENGTH = Dim("length", min=2, max=9)
HEIGHT = Dim("height", min=8, max=20)


def alibi(x: Tensor) -> Tensor:
    """Attention scores that fall with the distance."""
    places = torch.arange(x.shape[1])
    return x[:, :, None] - 0.25 * (places[None] - places[:, None]).abs()


OF_LENGTH: dict[str, Callable[[Tensor], Tensor]] = {
    "arange + 0.5": lambda x: x + (torch.arange(x.shape[1]) + 0.5)[None],
    "arange / T": lambda x: x + (torch.arange(x.shape[1]) / x.shape[1])[None],
    "1 / T": lambda x: x * 2 * (1 / x.shape[1]),
    "T ** -0.5": lambda x: x * 2 * (x.shape[1] ** -0.5),
    "T ** 0.5": lambda x: x * 2 / (x.shape[1] ** 0.5),
    "ALiBi": alibi,
    "T ** 0.5 to a power": lambda x: (x.shape[1] ** 0.5) ** x,
    "full": lambda x: torch.full((5, 1), x.shape[1] ** 0.5) + x.sum(1)[0],
    "comparison": lambda x: torch.where(x > 1 / x.shape[1], x, 1 / x.shape[1]) * 2,
}


@pytest.mark.parametrize("name", OF_LENGTH)
def test_sizes_and_positions(name: str) -> None:
    """What is made of a size that varies."""
    check_values(OF_LENGTH[name], X, dims=({1: LENGTH},))


@pytest.mark.parametrize("mode", ["nearest-exact", "nearest", "bilinear", "bicubic"])
def test_interpolation(mode: str) -> None:
    """By a factor and to a size, of a height that varies."""
    x = torch.randn(1, 2, 12, 10)
    may = ("aten.upsample_bilinear2d.vec", "aten.upsample_bicubic2d.vec")
    for options in ({"scale_factor": 2}, {"size": (7, 9)}):
        check_values(
            lambda x, options=options: F.interpolate(x, mode=mode, **options) * 1, x, dims=({2: HEIGHT},), fallback=may
        )


def test_numbers_that_stay_in_pytorch() -> None:
    """Where an operator takes no tensor in the place of a number, it runs in PyTorch, between engines."""
    may = ("aten.clamp.default",)
    check_values(lambda x: (x * 2).clamp(max=1 / x.shape[1]) * 2, X, dims=({1: LENGTH},), fallback=may)
