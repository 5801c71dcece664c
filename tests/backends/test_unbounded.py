"""Sizes that depend on values do not enter engines, which could not say how large they get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluating import networks_kept, networks_to_call
from support.repeats import Repeats
from support.stand_in import StandIn

from lightning_trt_windows import DimRange, InputSpec, export_module


def profile(interpreter: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each input of a network; -1 where it has a range."""
    net = interpreter.ctx.net
    return {net.get_input(n).name: tuple(net.get_input(n).shape) for n in range(net.num_inputs)}


@pytest.mark.parametrize("rows", [5, DimRange(2, 4, 8, name="rows")])
def test_what_comes_after_repeat_interleave(tmp_path: Path, rows: Any) -> None:
    """The engine was given a size of 0 to 0 there, and took no call at all."""
    module = Repeats().eval()
    inputs = {"x": InputSpec((rows, 4)), "times": InputSpec((rows,), "int64", values=(0, 3))}
    with networks_kept() as networks:
        artifact = export_module(module, inputs, tmp_path / "m.windows.ep")
    assert [set(profile(network)) for network in networks.values()] == [{"x"}]
    assert {"aten.repeat_interleave.Tensor", "aten.index_select.default", "aten.addmm.default"} & set(
        artifact.manifest.fallback_ops
    )
    loaded = StandIn(artifact, networks_to_call(networks)).load()
    for times in ([1, 2, 0, 3, 1], [0, 0, 0, 0, 1]):
        given = torch.randn(5, 4), torch.tensor(times)
        torch.testing.assert_close(loaded(*given), module(*given), rtol=1e-5, atol=1e-6)
