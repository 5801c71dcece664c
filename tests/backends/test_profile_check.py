"""Every size that reaches an engine is in its profile; one that is not is seen before the engine is built."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluating import compile_module, differences, networks_kept, networks_to_call
from support.repeats import Repeats
from support.stand_in import StandIn
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.backends import compiler, engine
from lightning_trt_windows.errors import CompileError


class Reader(nn.Module):
    """A length in steps of four."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


STEPS = {"x": InputSpec((DimRange(1, 2, 8), DimRange(4, 16, 64, name="length", multiple_of=4), 4))}


@pytest.fixture
def wrong_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """As upstream has it: the profile of ``4*n`` starts at 8."""
    monkeypatch.setattr(engine, "ranges_in_force", lambda *_: contextlib.nullcontext())


@pytest.fixture
def promises_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What symbols say is not compared with profiles."""
    monkeypatch.setattr(engine, "check_promised_sizes", lambda *_: None)


@pytest.mark.usefixtures("wrong_ranges")
@pytest.mark.parametrize("check", ["auto", False])
def test_a_profile_that_starts_too_high_is_refused(tmp_path: Path, check: Any) -> None:
    """With both shapes and the operator, whether or not numbers are checked; with a fixed size there is none."""
    wanted = (
        r"the engine _run_on_acc_0 would refuse sizes that this export promises: at the smallest sizes it is given a "
        r"tensor of the shape \[1, 4, 4\], and the engine's optimization profile takes \[1, 8, 4\] to \[8, 64, 4\], "
        r"which aten.linear.default \(test_profile_check.py:\d+: return .*\) takes. Fix the size that varies"
    )
    with pytest.raises(CompileError, match=wanted):
        export_module(Reader().eval(), STEPS, tmp_path / "m.windows.ep", check=check)
    assert not list(tmp_path.glob("*.ep"))
    fixed = {"x": InputSpec((DimRange(1, 2, 8), 4, 4))}
    assert export_module(Reader().eval(), fixed, tmp_path / "m.windows.ep", check=check).manifest.engines


@pytest.mark.usefixtures("wrong_ranges", "promises_unseen")
def test_what_reaches_an_engine_in_the_check_is_compared_with_its_profile(tmp_path: Path) -> None:
    """The shapes that the sample inputs have there, whatever symbols say."""
    wanted = r"at the sizes min \(.*length=4\) it is given a tensor of the shape \[1, 4, 4\], and the engine's opt"
    with pytest.raises(CompileError, match=wanted):
        export_module(Reader().eval(), STEPS, tmp_path / "m.windows.ep")


@pytest.mark.parametrize("rows", [5, DimRange(2, 4, 8, name="rows")])
def test_sizes_that_values_decide_stay_in_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Any) -> None:
    """As once was: the profile of what ``repeat_interleave`` gives went from 0 to 0, and the engine took no call."""
    monkeypatch.setattr(compiler, "takes_unbounded", lambda _: {})
    module = Repeats().eval()
    inputs = {"x": InputSpec((rows, 4)), "times": InputSpec((rows,), "int64", values=(1, 3))}
    with networks_kept() as networks:
        artifact = export_module(module, inputs, tmp_path / "m.windows.ep")
    notes = " ".join(artifact.manifest.notes)
    assert "it is given a tensor of the shape [" in notes
    assert "engine's optimization profile takes [0] only" in notes
    given = torch.randn(5, 4), torch.tensor([1, 2, 0, 3, 1])
    loaded = StandIn(artifact, networks_to_call({e.name: networks[e.name] for e in artifact.manifest.engines})).load()
    torch.testing.assert_close(loaded(*given), module(*given), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("wrong_ranges", "promises_unseen")
def test_evaluated_networks_refuse_what_engines_refuse() -> None:
    """So that conformance and zoo see it, too."""
    batch = torch.export.Dim("batch", min=1, max=8)
    steps = 4 * torch.export.Dim("steps", min=1, max=16)
    module = Reader().eval()
    evaluated = compile_module(module, torch.randn(2, 16, 4), dims=({0: batch, 1: steps},))
    assert differences(evaluated, module, torch.randn(1, 8, 4)) == []
    (problem,) = differences(evaluated, module, torch.randn(1, 4, 4))
    assert "of the shape [1, 4, 4], and the engine's optimization profile takes [1, 8, 4]" in problem
