"""NumPy arrays that forward makes of tensors may be kept, and not read."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.program import capture
from lightning_trt_windows.errors import CaptureError

SPEC = InputSpec((DimRange(1, 4, 8), 3))


class Importance(nn.Module):
    """Keeps the importance of its features, to be looked at afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.importance = numpy.zeros(3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.linear(x).softmax(-1)
        self.importance = weights.mean(0).detach().cpu().numpy()
        result: Tensor = x * weights
        return result


def test_an_array_that_is_kept() -> None:
    """Is left out of the trace, and the module has the one that it had before."""
    module = Importance()
    module(torch.ones(2, 3))
    before = module.importance
    program = capture(module, {"x": SPEC}).program.module()
    assert module.importance is before
    x = torch.rand(5, 3)
    assert torch.equal(program(x), module(x))


def test_an_array_that_is_read() -> None:
    """Would be baked in: refused, with its line and a way on."""

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.from_numpy(x.abs().numpy() + 1)

    with pytest.raises(CaptureError, match=r"forward reads what \.numpy\(\) gives.*Compute with the tensor"):
        capture(Reads(), {"x": SPEC})


def test_arrays_outside_of_a_trace() -> None:
    """Are what they were, also after one that failed."""
    assert torch.ones(2).numpy().tolist() == [1, 1]
    assert "numpy" not in torch.Tensor.__dict__
