"""Operators whose decompositions upstream fix a size: with dynamic ones they come out at every size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows._compat.torch_tensorrt import decompositions, upstream
from lightning_trt_windows.backends.dynamic_sizes import with_dynamic_sizes

TIME = DimRange(2, 5, 9, "t")
BATCH = DimRange(1, 4, 8, "batch")


class Statistics(nn.Module):
    """Statistics pooling of speaker models."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1), x.std(1)], 1)


class Variance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.var((0, 1), unbiased=False)


class Scatter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        index = (x > 0.5).long()
        return torch.zeros_like(x).scatter_add(1, index, x) + torch.ones_like(x).scatter_reduce(1, index, x, "amax")


def decomposed(module: nn.Module, *, fixed: bool = False) -> Any:
    """The program after our table, called at any size; with upstream's own table where ``fixed``."""
    blocks = upstream()
    settings = blocks.CompilationSettings(device=blocks.Device(gpu_id=0))
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=8), 1: torch.export.Dim("t", min=2, max=9)}}
    program = torch.export.export(module, (torch.rand(4, 5, 6),), dynamic_shapes=shapes)
    table = decompositions(blocks, settings)
    return program.run_decompositions(table if fixed else with_dynamic_sizes(table))


@pytest.mark.parametrize("module", [Statistics(), Variance(), Scatter()], ids=lambda m: type(m).__name__)
def test_every_size(module: nn.Module) -> None:
    """As eager computes."""
    program = decomposed(module)
    for shape in ((4, 5, 6), (2, 2, 6), (8, 9, 6)):
        x = torch.rand(shape)
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("module", [Statistics(), Variance(), Scatter()], ids=lambda m: type(m).__name__)
def test_upstream_still_fixes_them(module: nn.Module) -> None:
    """If this fails, the module under test can go."""
    program = decomposed(module, fixed=True)
    with pytest.raises((RuntimeError, AssertionError)):
        torch.testing.assert_close(program.module()(torch.ones(2, 9, 6)), module(torch.ones(2, 9, 6)))


def test_static_sizes_are_left_to_upstream() -> None:
    """Its loop over a known size keeps scatter_add in TensorRT."""
    table = decompositions(upstream(), upstream().CompilationSettings(device=upstream().Device(gpu_id=0)))
    scatter = with_dynamic_sizes(table)[torch.ops.aten.scatter_add.default]
    x, index = torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.int64)
    torch.testing.assert_close(scatter(torch.zeros(2, 3), 1, index, x), torch.zeros(2, 3).scatter_add(1, index, x))
    variance = with_dynamic_sizes(table)[torch.ops.prims.var.default]
    torch.testing.assert_close(variance(x, [1], correction=2), x.var(1, correction=2))


def test_statistics_become_an_engine(tmp_path: Path) -> None:
    """They were refused, with BatchNorm to blame, of which there is none."""
    artifact = export_module(Statistics(), {"x": InputSpec((BATCH, TIME, 6))}, tmp_path / "m.windows.ep")
    (record,) = artifact.manifest.inputs
    assert (record.min, record.max) == ((1, 2, 6), (8, 9, 6))
    assert artifact.manifest.fallback_ops == ()


def test_scatter_add_is_left_to_pytorch(tmp_path: Path) -> None:
    """Between engines."""
    artifact = export_module(Scatter(), {"x": InputSpec((BATCH, TIME, 6))}, tmp_path / "m.windows.ep")
    assert set(artifact.manifest.fallback_ops) == {"aten.scatter_add.default", "aten.scatter_reduce.two"}
