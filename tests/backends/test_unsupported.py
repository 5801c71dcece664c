"""What cannot become an engine is refused with its cause and a way on, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.backends.unsupported import refuse_lost_dimensions
from lightning_trt_windows.errors import CompileError

BATCH = DimRange(1, 4, 8, "batch")
SPEC = InputSpec((BATCH, DimRange(2, 5, 9, "t"), 6))


class Statistics(nn.Module):
    """Statistics pooling of speaker models."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1), x.std(1)], 1)


class Scatter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter_add(1, (x > 0.5).long(), x)


@pytest.mark.parametrize("module", [Statistics(), Scatter()], ids=lambda m: type(m).__name__)
def test_dynamic_sizes_that_upstream_fixes(module: nn.Module, tmp_path: Path) -> None:
    """They were refused, with BatchNorm to blame, of which there is none."""
    artifact = export_module(module, {"x": SPEC}, tmp_path / "m.windows.ep")
    (record,) = artifact.manifest.inputs
    assert (record.min, record.max) == ((1, 2, 6), (8, 9, 6))


class TestLostDimensions:
    """Programs whose lowering fixed a size."""

    def programs(self, module: nn.Module) -> tuple[Any, Any]:
        """One with a dynamic batch, and a graph in which it is 4."""
        x = torch.rand(4, 3)
        free = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=8)},))
        return free, torch.export.export(module, (x,)).module(check_guards=False)

    def test_batch_norm_in_train_mode(self) -> None:
        """It is to blame where there is one."""
        free, fixed = self.programs(nn.BatchNorm1d(3).train())
        with pytest.raises(CompileError, match=r"A BatchNorm in train mode does that: call eval\(\) on it"):
            refuse_lost_dimensions(free, fixed)

    def test_without_batch_norm(self) -> None:
        """And nowhere else; the option that is named fixes this dimension."""
        free, fixed = self.programs(nn.Linear(3, 2))
        with pytest.raises(
            CompileError, match=r'RangeOptions\(static=\["input\.0"\]\), or 4 in its InputSpec'
        ) as caught:
            refuse_lost_dimensions(free, fixed)
        assert "BatchNorm" not in str(caught.value)


class TestComplexOutputs:
    """TensorRT has no complex numbers."""

    class Net(nn.Module):
        """Complex or, as the message asks for, real."""

        def __init__(self, *, real: bool) -> None:
            super().__init__()
            self.real = real

        def forward(self, x: Tensor) -> Tensor:
            result = torch.complex(x, x * 2)
            return torch.view_as_real(result) if self.real else result

    def test_refused(self, tmp_path: Path) -> None:
        """By line, with what to return in its place."""
        with pytest.raises(CompileError, match=r"output 0 is complex .*test_unsupported\.py.*view_as_real"):
            export_module(self.Net(real=False), {"x": InputSpec((BATCH, 6))}, tmp_path / "m.windows.ep")

    def test_the_way_on(self, tmp_path: Path) -> None:
        """What the message says to do."""
        artifact = export_module(self.Net(real=True), {"x": InputSpec((BATCH, 6))}, tmp_path / "m.windows.ep")
        assert artifact.manifest.outputs[0].shape == ("batch", 6, 2)
