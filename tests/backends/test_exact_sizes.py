"""Sizes of several dimensions that floating numbers come to exactly become whole numbers, and no others do."""

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

BATCH, HEIGHT, WIDTH = Dim("batch", min=1, max=4), Dim("height", min=8, max=40), Dim("width", min=8, max=50)


def size_of(function: Any, width: Any = WIDTH) -> torch.SymInt:
    """What ``function`` of three sizes that vary is in a captured program."""

    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros(function(*x.shape))

    dims = ({0: BATCH, 1: HEIGHT, 2: width},)
    program = torch.export.export(Rows(), (torch.randn(2, 12, 16),), dynamic_shapes=dims, strict=False)
    size = next(iter(program.graph.output_node().args[0])).meta["val"].shape[0]
    assert isinstance(size, torch.SymInt)
    return size


def batch_of(windows: Any, height: Any, width: Any, window: int) -> Any:
    """As Swin Transformer finds it again."""
    return math.trunc(windows / (height * width / window / window))


@pytest.mark.parametrize("window", [4, 7])
def test_the_batch_of_windows(window: int) -> None:
    """Is the batch itself, where both sides were padded to multiples."""

    def function(batch: Any, height: Any, width: Any) -> Any:
        h, w = height + -height % window, width + -width % window
        return batch_of(batch * (h // window) * (w // window), h, w, window)

    expression = in_whole_numbers(size_of(function))
    assert expression.is_Symbol


def test_a_quotient_that_is_no_dimension() -> None:
    """Is written in integers, and is the same at every size."""

    def function(batch: Any, height: Any, width: Any) -> Any:
        rows = (height + -height % 4) // 4
        return math.trunc(width * (batch * rows / batch)) + 1

    size = size_of(function)
    expression = in_whole_numbers(size)
    assert "Float" not in str(expression)
    environment = size.node.shape_env
    assert environment is not None
    by_bound = {int(environment.var_to_range[symbol].upper): symbol for symbol in expression.free_symbols}
    assert by_bound.keys() == {40, 50}
    for height, width in ((8, 8), (13, 20), (40, 50)):
        assert int(expression.subs({by_bound[40]: height, by_bound[50]: width})) == function(1, height, width)


def test_what_is_left_over() -> None:
    """Sides that are no multiples, a factor that is no whole number, sizes past 2**53: refused."""
    unpadded = size_of(lambda b, h, w: batch_of(b * (h // 4) * (w // 4), h, w, 4) + 1)
    factor = size_of(lambda b, h, w: math.trunc(b * h * 0.3) + 1)
    large = size_of(lambda b, h, w: math.trunc(h * (b * w / w)) + 1, Dim("width", min=8, max=1 << 60))
    for size in (unpadded, factor, large):
        with pytest.raises(CompileError, match=r"made of [23] sizes, and not of whole numbers only"):
            in_whole_numbers(size)


def test_across_the_border_of_an_engine() -> None:
    """Windows and back, with an engine that takes and gives what the sizes are of."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            batch, h, w, channels = x.shape
            x = x.view(batch, h // 4, 4, w // 4, 4, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels)
            x = F.softmax(self.linear(x), 1)
            batch = batch_of(x.shape[0], h, w, 4)
            x = x.view(batch, h // 4, w // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5).reshape(batch, h, w, -1)
            return x.mean((1, 2))

    sides = (4 * Dim("rows", min=2, max=10), 4 * Dim("columns", min=2, max=10))
    check_values(Windows().eval(), torch.randn(2, 12, 20, 3), dims=({0: BATCH, 1: sides[0], 2: sides[1]},))
