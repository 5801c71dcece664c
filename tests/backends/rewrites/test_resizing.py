"""``resize_`` gives the first values in other sizes, in an engine; where it cannot, it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor

from lightning_trt_windows import InputSpec, export_module
from lightning_trt_windows.errors import CompileError

BATCH = torch.export.Dim("batch", min=2, max=8)


def test_resizing() -> None:
    """To the same number of values and to less, with fixed and with varying sizes."""
    check_values(lambda x: (x * 2).resize_(25, 5) + 1, torch.randn(5, 5, 5))
    check_values(lambda x: (x * 2).resize_(4, 3) + 1, torch.randn(5, 5, 5))
    check_values(lambda x: (x * 2).resize_(x.shape[0] * 3) + 1, torch.randn(4, 3), dims=({0: BATCH},))
    check_values(lambda x: (x * 2).resize_(6) + x.sum(), torch.randn(4, 5), dims=({0: BATCH},))


def test_what_may_grow_is_refused(tmp_path: Path) -> None:
    """With the line, both shapes, and what to write in its place, which is exported."""

    class Grows(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2).resize_(2, 8) + 1

    class Pads(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.pad((x * 2).flatten(), (0, 16)).flatten()[:16].reshape(2, 8) + 1

    spec = {"x": InputSpec((4, 3))}
    with pytest.raises(
        CompileError, match=r"resize_.default \(test_resizing.py:\d+: return .*\[2, 8\], which may take"
    ):
        export_module(Grows(), spec, tmp_path / "m.windows.ep")
    assert export_module(Pads(), spec, tmp_path / "m.windows.ep").manifest.engines
