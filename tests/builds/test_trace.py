"""How far outputs may be from each other, and programs that run with the weights of the moment."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.builds.execution import execute
from lightning_trt_windows.builds.trace import BareProgram, difference
from lightning_trt_windows.capture.program import capture

INPUTS = {"input": InputSpec((DimRange(1, 8, 32), 3, 16, 16))}


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (torch.ones(3), torch.ones(3), 0.0),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, math.inf]), 0.0),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, -math.inf]), math.inf),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), math.inf),
        (torch.ones(3), torch.ones(3, dtype=torch.float64), math.inf),
        (torch.ones(3), torch.ones(1, 3), math.inf),
        (torch.ones(3), 1.0, math.inf),
        (torch.zeros(3), torch.ones(3) * 1e-30, math.inf),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), math.inf),
        (3, 3, 0.0),
        (3, 3.0, math.inf),
        (None, None, 0.0),
    ],
)
def test_difference(one: Any, other: Any, found: float) -> None:
    """Equal, or of another kind."""
    assert difference(one, other) == found or (found == math.inf and difference(one, other) > 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_roundings(dtype: torch.dtype) -> None:
    """One unit in the last place is rounding; a hundredth is not."""
    one = torch.full((8,), 1.0, dtype=dtype)
    assert 0 < difference(one * (1 + torch.finfo(dtype).eps), one) < 1
    assert difference(one * 1.1, one) > 1


class Net(nn.Sequential):
    """In-place operators, buffers, and factories that name a device."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(784, 5))

    def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": super().forward(input) + torch.arange(5, device=input.device)}


def test_the_program_with_the_weights_of_the_moment() -> None:
    """Bit by bit what the module gives, whatever its weights are; other weights give something else."""
    module = Net()
    program = capture(module, INPUTS).program
    bare = BareProgram(program, {key: key for key in program.state_dict}, torch.device("cpu"))
    first = execute(module, INPUTS)
    assert first is not None
    assert bare.difference(module, first) == 0
    nn.init.normal_(module[4].weight)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    second = execute(module, INPUTS)
    assert second is not None
    assert bare.difference(module, second) == 0
    assert bare.difference(module, first) > 1
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_another_structure() -> None:
    """Outputs of other names are not the same."""
    module = Net()
    program = capture(module, INPUTS).program
    bare = BareProgram(program, {key: key for key in program.state_dict}, torch.device("cpu"))

    class Renamed(Net):
        def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"b": super().forward(input)["a"]}

    renamed = Renamed()
    renamed.load_state_dict(module.state_dict())
    other = execute(renamed, INPUTS)
    assert other is not None and bare.difference(renamed, other) == math.inf
