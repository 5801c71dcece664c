"""Each workaround for DeepSpeed is still needed by the installed version; a failure here says: delete it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import InputSpec
from lightning_trt_windows._compat.deepspeed import linear_of_torch
from lightning_trt_windows.capture.program import capture


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of one; afterwards it is gone, and ``linear`` is as before."""
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(nn.functional, "linear", nn.functional.linear)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def operators() -> list[str]:
    """What a capture of a layer has."""
    program = capture(nn.Sequential(nn.Linear(4, 2)), {"input": InputSpec((3, 4), "float32")}).program
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def test_linear_still_stays_replaced(group: None) -> None:
    """With the workaround a capture in the same process is as in any other."""
    deepspeed = pytest.importorskip("deepspeed")
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
    with deepspeed.zero.Init(config_dict_or_path=config):
        nn.Linear(2, 2)
    assert nn.functional.linear is not torch._C._nn.linear, "delete linear_of_torch"
    assert operators() == ["aten.linear.default"]


def test_what_somebody_else_has_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only DeepSpeed's is taken away, and it comes back, also after a failure."""

    def other(*args: Any, **kwargs: Any) -> Tensor:
        return torch._C._nn.linear(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "linear", other)
    with linear_of_torch():
        assert nn.functional.linear is other
    other.__module__ = "deepspeed.runtime.zero.linear"
    with pytest.raises(KeyError), linear_of_torch():
        assert nn.functional.linear is torch._C._nn.linear
        raise KeyError
    assert nn.functional.linear is other
