"""Attention over windows: a module that takes multiples of its window only is captured for these."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.program import DimensionError, capture

WINDOW = 7
BATCH = DimRange(1, 2, 2, "batch")


class Windows(nn.Module):
    """Patches of 4 pixels, and means over windows of 7 patches in place of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = x.view(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels).transpose(2, 3)
        x = x.reshape(-1, WINDOW * WINDOW, channels)
        x = F.softmax(x, 1) + x.mean(1, keepdim=True)
        x = x.view(batch, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels).transpose(2, 3)
        return x.reshape(batch, height, width, channels).mean((1, 2))


def spec(step: int, opt: int = 56) -> InputSpec:
    """Images from 56 to 168 pixels."""
    height, width = (DimRange(56, opt, 168, name, step) for name in ("h", "w"))
    return InputSpec((BATCH, 3, height, width))


def test_other_sizes_are_refused() -> None:
    """By name, with the steps that work."""
    with pytest.raises(
        DimensionError, match=r"Windows\.forward fails where .* it takes h in multiples of 56"
    ) as caught:
        capture(Windows(), {"x": spec(8)})
    assert {(s.symbol, s.multiple_of) for s in caught.value.suggestions} == {("h", 56), ("w", 56)}


@pytest.mark.parametrize("step", [28, 56])
def test_multiples_are_captured(step: int) -> None:
    """Also where the usual size is a single step, which torch.export would take for a constant."""
    module = Windows()
    program = capture(module, {"x": spec(step)}).program.module()
    for height, width in ((56, 56), (168, 56), (112, 168)):
        x = torch.rand(1, 3, height, width)
        assert torch.allclose(program(x), module(x), atol=1e-5)
