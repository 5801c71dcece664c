"""What of a program does not run on the CPU, or does not give the same twice, is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.errors import CompileError

SPEC = {"x": InputSpec((DimRange(1, 4, 8), 4))}


class State:
    """How often the operator of these tests was called, and from which call on it fails or adds to its result."""

    calls = 0
    fails_from: float = float("inf")
    adds_from: float = float("inf")


@pytest.fixture(scope="module")
def operator() -> Iterator[Any]:
    """An operator of the user's, which engines do not take."""

    @torch.library.custom_op("lightning_trt_windows_tests::moody", mutates_args=())
    def moody(x: Tensor) -> Tensor:
        State.calls += 1
        if State.calls >= State.fails_from:
            raise RuntimeError("not today")
        return x + (State.calls if State.calls >= State.adds_from else 0)

    moody.register_fake(lambda x: torch.empty_like(x))  # type: ignore[no-untyped-call]
    yield moody
    del moody


@pytest.fixture
def module(operator: Any) -> Iterator[nn.Module]:
    """It between two layers."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(operator(self.first(x).relu()))

    State.calls, State.fails_from, State.adds_from = 0, float("inf"), float("inf")
    yield Net().eval()
    State.calls, State.fails_from, State.adds_from = 0, float("inf"), float("inf")


def test_an_operator_that_fails_when_the_program_is_tried(tmp_path: Path, module: nn.Module) -> None:
    """With the line of the model. It ran until the file was written."""
    export_module(module, SPEC, tmp_path / "m.windows.ep")
    State.fails_from, State.calls = State.calls, 0
    wanted = (
        r"does not run: RuntimeError: not today. lightning_trt_windows_tests.moody.default \(test_replay.py:\d+: "
        r"return .*\) fails on the CPU, where programs are tried"
    )
    with pytest.raises(CompileError, match=wanted):
        export_module(module, SPEC, tmp_path / "n.windows.ep")
    assert not (tmp_path / "n.windows.ep").exists()


def test_an_operator_that_gives_something_else_each_time(tmp_path: Path, module: nn.Module) -> None:
    """There is nothing to compare with, and the manifest says so; it is not called a fault of PyTorch."""
    State.adds_from = 0
    check = export_module(module, SPEC, tmp_path / "m.windows.ep").manifest.check
    assert check is not None
    assert check.compared == ()
    assert "gives something else each time it runs on the same inputs" in str(check.not_checked)


def test_memory_that_nobody_filled(tmp_path: Path) -> None:
    """What it held is no result to compare with; where it is filled, all is compared."""

    class Unfilled(nn.Module):
        def __init__(self, filled: bool) -> None:
            super().__init__()
            self.filled = filled

        def forward(self, x: Tensor) -> Tensor:
            made = torch.linalg.svdvals(x.relu() * 2 + 1)
            memory = torch.empty(4, dtype=x.dtype)
            return made + (memory.zero_() if self.filled else memory)

    path, spec = tmp_path / "m.windows.ep", {"x": InputSpec((4, 4))}
    check = export_module(Unfilled(False), spec, path).manifest.check
    assert check is not None
    assert check.compared == ()
    assert "gives what was in memory that it did not fill (aten.empty" in str(check.not_checked)
    check = export_module(Unfilled(True), spec, path).manifest.check
    assert check is not None
    assert check.compared
    assert check.not_checked == ()
