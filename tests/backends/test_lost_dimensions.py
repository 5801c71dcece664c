"""Sizes that lowering takes away are refused with the operator that does it, and only where it takes any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.backends.lost_dimensions import refuse_lost_dimensions
from lightning_trt_windows.errors import CompileError


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


class Windows(nn.Module):
    """One window where ``x`` has three rows, for which PyTorch takes the range to begin at more."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.unfold(0, 3, 1)


class Pooled(nn.Module):
    """One window of six samples, and more of nine."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool1d(x * 2, 7, 3, ceil_mode=True)


class Columns(nn.Module):
    """A source that must be as wide as ``x`` has rows, whatever the ranges say."""

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        return torch.select_scatter(x * 3, source * 2, -1, 2)


class TestNarrowed:
    """Ranges that lowering narrowed."""

    @pytest.mark.parametrize(
        ("module", "name", "spec"),
        [
            (Windows(), "x", InputSpec((DimRange(3, 5, 10, "rows"), 4))),
            (Pooled(), "x", InputSpec((1, 2, DimRange(6, 9, 18, "length", 3)))),
        ],
        ids=["unfold", "pool"],
    )
    def test_one_window(self, module: nn.Module, name: str, spec: InputSpec, tmp_path: Path) -> None:
        """Nothing is taken away where the shapes are right at the smallest size, and numbers are compared there."""
        artifact = export_module(module, {name: spec}, tmp_path / "m.windows.ep")
        check = artifact.manifest.check
        assert check is not None
        assert "min" in [compared.name for compared in check.compared]
        assert not check.left_to_pytorch
        assert artifact.manifest.inputs[0].min == spec.at("min")

    def test_shapes_that_change(self) -> None:
        """The operator whose shape it is is named, and what is left of the range."""
        x = torch.rand(4, 3)

        class Halves(nn.Module):
            """What a faulty decomposition of ``x[:3]`` would be."""

            def forward(self, x: Tensor) -> Tensor:
                return x[:3] + 1

        dims = ({0: torch.export.Dim("rows", min=3, max=8)},)
        source = torch.export.export(Halves(), (x,), dynamic_shapes=dims)
        narrow = torch.export.export(Halves(), (x,), dynamic_shapes=dims)
        symbol = next(iter(source.range_constraints))
        source.range_constraints[symbol] = type(source.range_constraints[symbol])(2, 8)
        with pytest.raises(
            CompileError,
            match=r"from 2\.\.8 to 3\.\.8: at 2, aten\.slice\.Tensor "
            r"\(test_lost_dimensions\.py:\d+: return x\[:3\] \+ 1\) gives float32\[2, 3\] rather than float32\[3, 3\].*"
            r'RangeOptions\(dynamic=\{"x\.0": \[3, 4, 8\]\}\)',
        ):
            refuse_lost_dimensions(source, narrow.module(check_guards=False))


class TestFixed:
    """A size that an operator decomposes with."""

    WIDTH = DimRange(1, 5, 10, "width")

    def test_names_the_operator(self, tmp_path: Path) -> None:
        """And its line, by the names of inputs that people use."""
        inputs = {"x": InputSpec((5, 5, self.WIDTH)), "source": InputSpec((5, self.WIDTH))}
        with pytest.raises(
            CompileError,
            match=r"select_scatter\.default \(test_lost_dimensions\.py:\d+: return torch\.select_scatter"
            r'.*static=\["x\.2"\]',
        ):
            export_module(Columns(), inputs, tmp_path / "m.windows.ep")

    def test_the_way_on(self, tmp_path: Path) -> None:
        """What the message says to do."""
        inputs = {"x": InputSpec((5, 5, 5)), "source": InputSpec((5, 5))}
        assert export_module(Columns(), inputs, tmp_path / "m.windows.ep").manifest.engines
