"""What a script has around an export: modes and defaults of PyTorch that are no part of the program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_trt_windows import DimRange, InputSpec, export_module


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """``torch.set_default_dtype`` for a block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
    # it stands for a GPU, and fails louder: nothing can be read of what is made there
    "default device": lambda: torch.device("meta"),
    "default dtype": lambda: default_dtype(torch.float64),
    "counted": lambda: FlopCounterMode(display=False),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_are_no_part_of_the_program(name: str, tmp_path: Path) -> None:
    """Engines, inputs and outputs are those of an export without; autocast gave a program unlike its manifest."""
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    inputs = {"input": InputSpec((DimRange(1, 2, 4, name="batch"), 8), dtype="float32")}
    plain = export_module(module, inputs, tmp_path / "plain.windows.ep", golden=True).manifest
    with SURROUNDINGS[name]():
        found = export_module(module, inputs, tmp_path / "found.windows.ep", golden=True).manifest
    assert found.check is not None
    assert found.check.compared
    assert not found.check.not_checked
    assert [engine.sha256 for engine in found.engines] == [engine.sha256 for engine in plain.engines]
    assert (found.inputs, found.outputs) == (plain.inputs, plain.outputs)
    assert all(p.dtype is torch.float32 and p.device.type == "cpu" for p in module.parameters())
