"""A dimension of the sizes 1 and 2 stays one, also where PyTorch sets 1 aside."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.backends.two_sizes import room_given
from lightning_trt_windows.capture.program import DimensionError, capture
from lightning_trt_windows.export.saved_program import load_program, save_program

BATCH = DimRange(1, 2, 2, "batch")


class Normed(nn.Module):
    """One channel: the statistics have the batch as their only size."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.InstanceNorm1d(1, affine=True), nn.Conv1d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class TwoOnly(nn.Module):
    """Another branch for two than for one."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.shape[0] == 2 else x * 3


class UpToTwo(nn.Module):
    """Takes two at most."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch._check(x.shape[0] <= 2)
        return self.linear(x)


def test_a_program_that_travelled() -> None:
    """As those of the callback do: they are read back with their ranges, and lowered after that."""
    module = Normed().eval()
    captured = capture(module, {"x": InputSpec((BATCH, 1, 20))})
    saved = io.BytesIO()
    save_program(captured.program, saved)
    saved.seek(0)
    program = load_program(saved)
    assert [(int(r.lower), int(r.upper)) for r in program.range_constraints.values()] == [(1, 2)]
    with room_given(program):
        decomposed = program.run_decompositions(torch.export.default_decompositions())
    assert [(int(r.lower), int(r.upper)) for r in program.range_constraints.values()] == [(1, 2)]
    (size, *_) = next(n for n in decomposed.graph.nodes if n.name == "x").meta["val"].shape
    assert isinstance(size, torch.SymInt)
    assert size.node.expr.free_symbols


@pytest.mark.parametrize("sides", [20, DimRange(4, 4, 8, "n", 4)])
def test_an_artifact(tmp_path: Path, sides: int | DimRange) -> None:
    """Promises what was asked for, and no third size."""
    artifact = export_module(Normed().eval(), {"x": InputSpec((BATCH, 1, sides))}, tmp_path / "m.windows.ep")
    (record,) = artifact.manifest.inputs
    long = (20, 20) if sides == 20 else (4, 8)
    assert (record.min, record.max) == ((1, 1, long[0]), (2, 1, long[1]))
    assert artifact.manifest.check is not None
    assert {compared.name for compared in artifact.manifest.check.compared} >= {"min", "opt"}


def test_a_branch_for_two() -> None:
    """Is noticed: it was decided without a word, and 1 went the same way."""
    with pytest.raises(DimensionError) as caught:
        capture(TwoOnly(), {"x": InputSpec((BATCH, 3))})
    assert {(s.symbol, s.static) for s in caught.value.suggestions} == {("batch", 2)}


def test_what_takes_no_third() -> None:
    """Is traced without the room."""
    module = UpToTwo()
    program = capture(module, {"x": InputSpec((BATCH, 3))}).program
    assert [(int(r.lower), int(r.upper)) for r in program.range_constraints.values()] == [(1, 2)]
    for batch in (1, 2):
        x = torch.rand(batch, 3)
        assert torch.allclose(program.module()(x), module(x))
