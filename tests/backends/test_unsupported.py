"""What cannot become an engine is refused with its cause and a way on, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
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
