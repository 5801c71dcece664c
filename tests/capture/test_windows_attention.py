"""Attention over windows, in the ways that Swin Transformer and Segment Anything write it.

What takes multiples of its window only is captured for these, and what pads for every size.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.conditions import without_checks
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


class ByDivision(nn.Module):
    """Finds the batch again in the number of windows, as Swin Transformer's own code does, or with whole numbers."""

    def __init__(self, pads: str, divides: str) -> None:
        super().__init__()
        self.pads, self.divides = pads, divides

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        below, beside = (4 - height % 4) % 4, (4 - width % 4) % 4
        if self.pads == "always" or (self.pads == "where needed" and (below > 0 or beside > 0)):
            x = F.pad(x, (0, 0, 0, beside, 0, below))
        batch, h, w, _ = x.shape
        x = x.view(batch, h // 4, 4, w // 4, 4, channels).permute(0, 1, 3, 2, 4, 5).contiguous()
        x = x.view(-1, 16, channels)
        x = F.softmax(x, 1).view(-1, 4, 4, channels)
        windows = x.shape[0]
        batch = int(windows / (h * w / 4 / 4)) if self.divides == "floats" else windows // (h * w // 4 // 4)
        x = x.view(batch, h // 4, w // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5).contiguous()
        return x.view(batch, h, w, -1)[:, :height, :width].contiguous()


SIDES = DimRange(8, 8, 16, "h"), DimRange(8, 12, 16, "w")


@pytest.mark.parametrize(("pads", "divides"), [("always", "floats"), ("where needed", "whole numbers")])
def test_any_size_of_what_is_padded(pads: str, divides: str) -> None:
    """Also where it pads only what is not a multiple: padding by nothing is the same."""
    module = ByDivision(pads, divides)
    captured = capture(module, {"x": InputSpec((DimRange(1, 2, 4, "batch"), *SIDES, 3))})
    assert captured.inputs[0].symbols == ("batch", "h", "w", None)
    program = without_checks(captured.program)
    for shape in ((1, 8, 8, 3), (4, 9, 16, 3), (2, 16, 11, 3), (3, 10, 10, 3), (4, 12, 16, 3)):
        x = torch.rand(shape)
        assert torch.allclose(program(x), module(x), atol=1e-6)


def test_the_batch_found_again_with_floating_numbers() -> None:
    """Swin Transformer's own way: the batch stays as dynamic as it was declared, beside sizes in steps."""
    module = ByDivision("never", "floats")
    sides = (DimRange(8, 8, 24, "h", 4), DimRange(8, 12, 24, "w", 4))
    captured = capture(module, {"x": InputSpec((DimRange(1, 2, 4, "batch"), *sides, 3))})
    program = without_checks(captured.program)
    for shape in ((1, 8, 8, 3), (4, 24, 12, 3), (3, 12, 24, 3)):
        x = torch.rand(shape)
        assert torch.allclose(program(x), module(x), atol=1e-6)


def test_a_branch_between_the_multiples() -> None:
    """What does something else there is not taken for what pads."""

    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.shape[1] % 4 else x * 2

    with pytest.raises(DimensionError) as caught:
        capture(Other(), {"x": InputSpec((BATCH, DimRange(8, 8, 24, "h")))})
    assert ("h", 4) in {(s.symbol, s.multiple_of) for s in caught.value.suggestions}
