"""The program that was written against what was compared before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module


class Rounded(nn.Module):
    """What 16 bits round shows, as in deep nets of convolutions: small differences of large numbers."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) + self.offset) - self.offset


@pytest.mark.parametrize(("precision", "offset"), [("16", 40.0), ("bf16", 5.0)])
def test_what_16_bits_round_is_no_fault_of_the_program(precision: str, offset: float, tmp_path: Path) -> None:
    """EfficientNet and ResNet-18 were refused, because the engines gave what their networks had been seen to give."""
    torch.manual_seed(0)
    inputs = {"x": InputSpec((DimRange(1, 2, 4, name="batch"), 8))}
    check = export_module(Rounded(offset).eval(), inputs, tmp_path / "m.windows.ep", precision=precision).manifest.check
    assert check is not None
    assert max(sizes.lowered for sizes in check.compared) > 1e-2
