"""Shapes that a program has at its smallest sizes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.program import DimensionError, capture
from lightning_trt_windows.capture.smallest import shape_that_changes

ROWS = DimRange(1, 4, 8, "rows")


class FirstTwo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:2] * 3.0


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x]) * 3.0


class Found(nn.Module):
    """What is found decides a size."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x[:, 0] > 0] + x[:2].sum()


def traced(module: nn.Module) -> ExportedProgram:
    """With rows from 1 to 8."""
    return torch.export.export(module, (torch.rand(4, 5),), dynamic_shapes={"x": {0: Dim("rows", min=1, max=8)}})


def test_a_slice_of_two_rows() -> None:
    """The program says two rows, and there is one."""
    found = shape_that_changes(traced(FirstTwo()), [("rows", None)], {"rows": 1})
    assert found is not None
    node, words = found
    assert node.target is torch.ops.aten.slice.Tensor
    assert words == "float32[1, 5] rather than float32[2, 5]"
    assert shape_that_changes(traced(FirstTwo()), [("rows", None)], {"rows": 2}) is None


def test_sizes_that_follow() -> None:
    """A size that the program computes from another is right at all of them."""
    assert shape_that_changes(traced(Twice()), [("rows", None)], {"rows": 1}) is None


def test_sizes_that_data_decides() -> None:
    """Nothing is said of what has no shape without values."""
    assert shape_that_changes(traced(Found()), [("rows", None)], {"rows": 1}) is None


def test_such_a_dimension_is_narrowed() -> None:
    """The capture says so, with the operator and the line of the model, and what would work."""
    with pytest.raises(DimensionError, match=r"slice.Tensor \(test_smallest.py:\d+: return x\[:2\] \* 3.0\)") as caught:
        capture(FirstTwo(), {"x": InputSpec((ROWS, 5))})
    (suggestion,) = caught.value.suggestions
    assert suggestion.applied_to(ROWS) == DimRange(2, 4, 8, "rows")
    assert capture(Twice(), {"x": InputSpec((ROWS, 5))}).program is not None
