"""Sizes computed in floating numbers become quotients of integers that are the same, or are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from lightning_trt_windows.backends.whole_sizes import in_whole_numbers
from lightning_trt_windows.errors import CompileError

BATCH, HEIGHT = Dim("batch", min=1, max=4), Dim("height", min=12, max=300)


class Rows(nn.Module):
    """As many rows as ``function`` of the height says."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(self.function(x.shape[0]))


def size_of(function: Any, dim: Any = HEIGHT) -> torch.SymInt:
    """What ``function`` of a size that varies is in a captured program."""
    program = torch.export.export(Rows(function), (torch.randn(24, 2),), dynamic_shapes=({0: dim},), strict=False)
    size = next(iter(program.graph.output_node().args[0])).meta["val"].shape[0]
    assert isinstance(size, torch.SymInt)
    return size


@pytest.mark.parametrize("scale", [1.5, 0.3, 1 / 3, 1.1, 2.0, 0.1, 2 / 3, 1.7320508])
def test_scaled_sizes(scale: float) -> None:
    """The same for every size, also where the product rounds up to a whole number."""
    expression = in_whole_numbers(size_of(lambda n: math.trunc(n * scale) + 1))
    (symbol,) = expression.free_symbols
    for n in range(12, 301):
        assert int(expression.subs(symbol, n)) == int(n * scale) + 1
    assert "Float" not in str(expression)
    assert "ToInt" not in str(expression)


def test_rounded_up() -> None:
    """And with something added."""
    expression = in_whole_numbers(size_of(lambda n: math.ceil(n * 0.3 + 0.5)))
    (symbol,) = expression.free_symbols
    assert all(int(expression.subs(symbol, n)) == math.ceil(n * 0.3 + 0.5) for n in range(12, 301))


def test_sizes_that_are_no_quotient() -> None:
    """0.7 * 90 is a little less than 63, and 0.7 * 100 is 70; a size without an upper bound: refused, and why."""
    with pytest.raises(CompileError, match=r"no quotient of integers gives the same for all sizes 12 to 300"):
        in_whole_numbers(size_of(lambda n: math.trunc(n * 0.7) + 1))
    with pytest.raises(CompileError, match=r"computed in floating numbers.*has no upper bound.*3 \* n // 2"):
        in_whole_numbers(size_of(lambda n: math.floor(n * 0.3) + 1, Dim("height", min=12)))


@pytest.mark.parametrize("scale", [1.5, 0.3])
def test_across_the_border_of_an_engine(scale: float) -> None:
    """An interpolation whose size is computed in floating numbers, between two layers."""

    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.interpolate(self.before(x), scale_factor=scale, mode="bilinear", recompute_scale_factor=True)
            return self.after(x)

    may = ("aten.upsample_bilinear2d.vec",)
    dims = ({0: BATCH, 2: Dim("height", min=8, max=20)},)
    check_values(Up().eval(), torch.randn(2, 2, 12, 10), dims=dims, fallback=may)

    def nearest(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=scale, recompute_scale_factor=True) * 2

    check_values(nearest, torch.randn(1, 2, 12, 10), dims=({2: dims[0][2]},))
