"""What a trace takes for granted of sizes, and where that is not so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lightning_trt_windows import DimRange
from lightning_trt_windows.capture.conditions import failing, input_sizes, without_checks

H, W = DimRange(8, 10, 24), DimRange(8, 9, 24)


class Together(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] != x.shape[1] + 3 else x + 1


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def traced(module: nn.Module, h: DimRange = H, w: DimRange = W) -> ExportedProgram:
    """With both dimensions dynamic."""
    shapes = {"x": {0: Dim("h", min=h.min, max=h.max), 1: Dim("w", min=w.min, max=w.max)}}
    return torch.export.export(module, (torch.rand(h.opt, w.opt),), dynamic_shapes=shapes)


def test_sizes_at_which_it_fails() -> None:
    """The first, the last and some between them, in the names of the dimensions."""
    (condition,) = failing(traced(Together()), [("h", "w")], {"h": H, "w": W})
    assert condition.text == "h != (3 + w)"
    assert condition.symbols == ("h", "w")
    assert len(condition.sizes) == 5
    assert all(sizes["h"] == sizes["w"] + 3 for sizes in condition.sizes)
    assert (condition.sizes[0]["h"], condition.sizes[-1]["h"]) == (11, 24)


def test_ranges_in_which_it_never_fails() -> None:
    """Nothing to compare."""
    wide = DimRange(22, 23, 24)
    assert failing(traced(Together(), w=wide), [("h", "w")], {"h": H, "w": wide}) == []


def test_large_ranges() -> None:
    """Some of the combinations are drawn, and the ends are always among them."""
    large = DimRange(8, 10, 2000)
    program = traced(Together(), large, large)
    (condition,) = failing(program, [("h", "w")], {"h": large, "w": large})
    assert all(sizes["h"] == sizes["w"] + 3 for sizes in condition.sizes)


def test_dimensions_in_steps() -> None:
    """Are multiples, of which torch.export counts the steps."""

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.shape[0] != x.shape[1] else x + 1

    shapes = {"x": {0: 8 * Dim("_h", min=1, max=4), 1: 8 * Dim("_w", min=1, max=4)}}
    program = torch.export.export(Square(), (torch.rand(16, 24),), dynamic_shapes=shapes)
    stepped = DimRange(8, 16, 32, multiple_of=8)
    (condition,) = failing(program, [("h", "w")], {"h": stepped, "w": stepped})
    assert [(s["h"], s["w"]) for s in condition.sizes] == [(n, n) for n in (8, 16, 24, 32)]


def test_names_of_sizes() -> None:
    """Static ones have none."""
    program = traced(Doubled())
    assert [name for _, name in input_sizes(program, [("h", "w")])] == ["h", "w"]
    assert [name for _, name in input_sizes(program, [("h", None)])] == ["h"]


def test_called_without_its_checks() -> None:
    """With the checks it refuses what an engine would take."""
    program = traced(Together())
    x = torch.rand(12, 9)
    with pytest.raises((AssertionError, RuntimeError)):
        program.module()(x)
    torch.testing.assert_close(without_checks(program)(x), x * 2)
