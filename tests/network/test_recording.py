"""Iterations that are recorded once: the same numbers as one by one, and no recording where values decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_trt_windows.network.recording import Repeated

WEIGHT = torch.randn(4, 4)


class Counted:
    """Counts how often a function is called."""

    def __init__(self, function: Callable[..., dict[str, Tensor]]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Call it."""
        self.calls += 1
        return self.function(**values)


def step(x: Tensor, h: Tensor) -> dict[str, Tensor]:
    """Slices, a list of tensors, a constant, and an argument that is given back as it is."""
    first, second = torch.cat([x, h], 1).chunk(2, 1)
    return {"y": (first @ WEIGHT.T).tanh() + second.reshape(-1, 4), "h": h, "w": WEIGHT}


def over_sizes(function: Counted, sizes: Any = (3,) * 6) -> None:
    """Every call gives what the function gives for its own values."""
    repeated = Repeated(function)
    with torch.no_grad():
        for rows in sizes:
            values = {"x": torch.randn(rows, 4), "h": torch.randn(rows, 4)}
            found = repeated(values)
            wanted = function.function(**values)
            assert list(found) == list(wanted)
            for name, value in wanted.items():
                torch.testing.assert_close(found[name], value)


def test_the_first_call_is_enough() -> None:
    """The second is made both ways."""
    function = Counted(step)
    over_sizes(function)
    assert function.calls == 2


def test_other_shapes_are_computed_in_full() -> None:
    """And the recorded ones go on."""
    function = Counted(step)
    over_sizes(function, (3, 3, 5, 3, 5))
    assert function.calls == 4


def test_the_same_tensor_twice() -> None:
    """As two states that begin as the same zeros."""
    function, zeros = Counted(step), torch.zeros(2, 4)
    repeated = Repeated(function)
    repeated({"x": zeros, "h": zeros})
    x, h = torch.randn(2, 2, 4)
    for name, value in step(x, h).items():
        torch.testing.assert_close(repeated({"x": x, "h": h})[name], value)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, h: {"y": x * 2 if bool((h > 0).all()) else x},
        lambda x, h: {"y": h[: int(x[0, 0] > 0) + 1]},
        lambda x, h: {"y": x.clone().add_(h)},
        lambda x, h: {"y": h[h > 0]},
    ],
    ids=["branch", "size", "in place", "mask"],
)
def test_what_depends_on_values_is_not_recorded(function: Any) -> None:
    """Each call is one of the function."""
    counted = Counted(function)
    over_sizes(counted)
    assert counted.calls == 6


def test_what_changes_unseen_is_noticed() -> None:
    """Where the second call differs from what was recorded, nothing is taken from the record."""
    numbers = iter(range(100))
    counted = Counted(lambda x, h: {"y": x + torch.tensor(float(next(numbers)))})
    repeated, x = Repeated(counted), torch.zeros(1)
    assert [float(repeated({"x": x, "h": x})["y"]) for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
