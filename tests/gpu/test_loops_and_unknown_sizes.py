"""Engines on a GPU against eager on the CPU: recurrent nets of few units, and what has a size that data decide.

The largest error of each is a property in ``--junitxml``.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_trt_windows import DimRange, InputSpec, export_module, load

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="runs engines, which needs an NVIDIA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="runs engines with tensorrt-rtx"),
]

CLOSE = 2e-3
"""Of the norm of an output: TensorRT-RTX may use TF32."""
BATCH, STEPS = DimRange(1, 2, 8, name="batch"), DimRange(1, 16, 64, name="steps")
ROWS, LETTERS = DimRange(1, 4, 16, name="rows"), DimRange(2, 8, 16, name="letters")


class Net(nn.Module):
    """A recurrent net that also returns its state."""

    def __init__(self, kind: str, features: int, units: int, **options: Any) -> None:
        super().__init__()
        self.net = getattr(nn, kind)(features, units, batch_first=True, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output, state = self.net(x)
        return output, state if isinstance(state, Tensor) else state[0]


class Repeated(nn.Module):
    """Rows as often as they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scores = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        return self.scores(torch.repeat_interleave(self.linear(x), times, dim=0).relu())


class Speech(nn.Module):
    """Each letter as long as it lasts, as in the length regulator of FastSpeech."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.sound = nn.Embedding(20, 8), nn.Conv1d(8, 4, 3, padding=1)

    def forward(self, ids: Tensor, durations: Tensor) -> Tensor:
        frames = torch.repeat_interleave(self.letters(ids)[0], durations[0], dim=0)
        return self.sound(frames.T[None]).relu()


def compared(
    module: nn.Module, inputs: dict[str, InputSpec], calls: list[tuple[Tensor, ...]], folder: Path, **options: Any
) -> float:
    """The largest error of all outputs of all calls, as a part of the output's norm."""
    module.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*NVIDIA does not support it")
        loaded = load(export_module(module, inputs, folder / "m.windows.ep", **options).path, "cuda:0")
    errors = []
    for arguments in calls:
        with torch.no_grad():
            wanted = tree_leaves(module(*arguments))
        given = tree_leaves(loaded(*(argument.cuda() for argument in arguments)))
        for ours, eager in zip(given, wanted, strict=True):
            assert ours.shape == eager.shape
            difference = (ours.cpu().double() - eager.double()).norm()
            errors.append(float(difference / eager.double().norm().clamp_min(1e-12)))
    return max(errors)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    ("features", "units", "options"),
    [(1, 1, {}), (2, 3, {}), (3, 2, {"bidirectional": True}), (4, 8, {"num_layers": 2}), (8, 16, {})],
)
def test_few_units(
    kind: str, features: int, units: int, options: dict[str, Any], tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """Any batch and length within the ranges."""
    calls = [(torch.randn(b, t, features),) for b, t in ((1, 1), (1, 16), (1, 64), (2, 16), (8, 64))]
    inputs = {"x": InputSpec((BATCH, STEPS, features))}
    error = compared(Net(kind, features, units, **options), inputs, calls, tmp_path, recurrent="engine")
    record_property("error", error)
    assert error < CLOSE


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch", [(1,), ()])
def test_one_row(kind: str, batch: tuple[int, ...], tmp_path: Path, record_property: Callable[..., None]) -> None:
    """TensorRT's loop runs two rows then, of which one is returned."""
    calls = [(torch.randn(*batch, steps, 3),) for steps in (1, 16, 64)]
    inputs = {"x": InputSpec((*batch, STEPS, 3))}
    error = compared(Net(kind, 3, 4), inputs, calls, tmp_path, recurrent="engine")
    record_property("error", error)
    assert error < CLOSE


def test_rows_that_are_repeated(tmp_path: Path, record_property: Callable[..., None]) -> None:
    """What comes after it has a size that no engine can be built for, and runs in PyTorch."""
    calls = [(torch.randn(rows, 8), torch.randint(0, 5, (rows,))) for rows in (4, 16, 1)]
    inputs = {"x": InputSpec((ROWS, 8)), "times": InputSpec((ROWS,), dtype="int64")}
    error = compared(Repeated(), inputs, calls, tmp_path)
    record_property("error", error)
    assert error < CLOSE


def test_letters_that_last(tmp_path: Path, record_property: Callable[..., None]) -> None:
    """The same for a convolution over what was repeated."""
    calls = [(torch.randint(0, 20, (1, n)), torch.randint(1, 4, (1, n))) for n in (8, 16, 2)]
    inputs = {name: InputSpec((1, LETTERS), dtype="int64") for name in ("ids", "durations")}
    error = compared(Speech(), inputs, calls, tmp_path)
    record_property("error", error)
    assert error < CLOSE
