"""Examples for a trace, and their dynamic dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.constraint_fixes import Suggestion
from lightning_trt_windows.capture.dimensions import Dimensions, trace_size
from lightning_trt_windows.errors import ConfigurationError

CPU = torch.device("cpu")
TIME = DimRange(2, 5, 9, "t")
WIDTH = DimRange(32, 64, 128, multiple_of=32)


@pytest.mark.parametrize(
    ("dim", "size"),
    [(TIME, 5), (DimRange(1, 1, 8), 2), (DimRange(1, 1, 1), 1), (WIDTH, 64), (DimRange(8, 8, 64, multiple_of=8), 16)],
)
def test_the_usual_size_to_trace_at(dim: DimRange, size: int) -> None:
    """The one it is tuned for, but not 1, and not a single step."""
    assert trace_size(dim) == size


def test_examples_have_the_sizes_asked_for() -> None:
    """By symbol, and otherwise the usual ones; constants are themselves."""
    dims = Dimensions(CPU, {"t": 9})
    example = dims.example("x", InputSpec((TIME, WIDTH, 3)))
    assert example.shape == (9, 64, 3)
    assert dims.example("flag", True) is True
    assert (dims.traced_at("t"), dims.traced_at("x_1"), dims.traced_at("other")) == (9, 64, None)
    assert dims.symbols("x", InputSpec((TIME, WIDTH, 3))) == ("t", "x_1", None)
    assert dims.shapes[example].keys() == {0, 1}


def test_values_stay_inside_their_range() -> None:
    """Of integers and of floats."""
    dims = Dimensions(CPU)
    ids = dims.tensor("ids", InputSpec((100,), "int64", (3, 5)), {})
    assert set(ids.tolist()) == {3, 4, 5}
    numbers = dims.tensor("x", InputSpec((100,), "float32", (2, 3)), {})
    assert numbers.min() >= 2 and numbers.max() <= 3
    assert dims.tensor("mask", InputSpec((3,), "bool"), {}).all()


def test_a_range_that_begins_later_for_the_trace() -> None:
    """torch.export hears of the sizes from there on; what is known of the range stays."""

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    dims = Dimensions(CPU, lows={"t": 4})
    program = torch.export.export(Net(), (dims.example("x", InputSpec((TIME,))),), dynamic_shapes=dims.shapes)
    ((_, bounds),) = program.range_constraints.items()
    assert (bounds.lower, bounds.upper) == (4, 9)
    assert dims.ranges["t"] == TIME


def test_one_name_has_one_range() -> None:
    """Where it differs is named."""
    dims = Dimensions(CPU)
    dims.example("x", InputSpec((TIME,)))
    with pytest.raises(ConfigurationError, match=r"'t' is 2\.\.5\.\.9 in one input and 2\.\.5\.\.8 in y\[0\]"):
        dims.example("y", InputSpec((DimRange(2, 5, 8, "t"),)))


def test_suggestions_for_numbers_of_steps() -> None:
    """Become suggestions for sizes."""
    dims = Dimensions(CPU)
    dims.example("x", InputSpec((DimRange(32, 64, 128, "w", 32), TIME)))
    assert dims.translated(Suggestion("_w", max=3)) == Suggestion("w", max=96, multiple_of=32)
    assert dims.translated(Suggestion("t", static=5)) == Suggestion("t", static=5)
