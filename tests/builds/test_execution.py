"""What a run on small inputs says of a module, and that it leaves nothing behind."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.builds.execution import execute

INPUTS = {"x": InputSpec((DimRange(1, 8, 32), 4))}


class Untidy(nn.Module):
    """Writes wherever a forward can write, and draws from every generator."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.register_buffer("queue", torch.zeros(8, 4))
        self.kept = torch.zeros(4)
        self.seen: list[torch.Tensor] = []
        self.counts: dict[str, int] = {}
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.net(x)
        self.queue[:2] = x[:1]
        self.kept.add_(x[0])
        self.seen.append(x)
        self.counts["calls"] = self.counts.get("calls", 0) + 1
        self.last = x
        noise = torch.randn_like(x) + random.random() + float(np.random.rand())
        return x + noise


def state(module: Untidy) -> list[Any]:
    """All that a run could leave behind."""
    return [
        module.training,
        module.net.training,
        {key: value.clone() for key, value in module.state_dict().items()},
        module.kept.clone(),
        list(module.seen),
        dict(module.counts),
        module.last,
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        torch.backends.cudnn.benchmark,
        torch.compiler.is_exporting(),
    ]


def test_nothing_is_left_behind() -> None:
    """Weights, buffers, attributes and what they contain, modes, random numbers and flags are as they were."""
    module = Untidy().train()
    module(torch.randn(5, 4))
    identities = [id(t) for t in (*module.parameters(), *module.buffers(), module.kept, *module.seen)]
    before = state(module)
    assert execute(module, INPUTS) is not None
    torch.testing.assert_close(state(module), before, rtol=0, atol=0)
    assert [id(t) for t in (*module.parameters(), *module.buffers(), module.kept, *module.seen)] == identities


def test_a_step_that_is_under_way() -> None:
    """Gradients of a forward before it are those that they would be without it."""
    module = Untidy()
    module(torch.randn(5, 4)).square().sum().backward()
    loss = module.net(torch.ones(5, 4)).square().sum()
    execute(module, INPUTS)
    loss.backward()


def test_the_same_twice() -> None:
    """Random numbers are drawn alike, and weights are not part of the key."""
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.LayerNorm(8))
    inputs = {"input": INPUTS["x"]}
    first = execute(module, inputs)
    nn.init.normal_(module[0].weight)
    second = execute(module, inputs)
    assert first is not None and second is not None
    assert first.key == second.key and first.is_whole
    assert not torch.equal(first.outputs[0], second.outputs[0])
    assert first.inputs[0].shape == (2, 4), "1 is special"


def test_numbers_out_of_tensors() -> None:
    """They change with the weights; the key does not, and says of itself that it is not all."""

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.weight.sum().item()

    module = Scaled(4, 2)
    first = execute(module, INPUTS)
    nn.init.normal_(module.weight)
    second = execute(module, INPUTS)
    assert first is not None and second is not None
    assert first.key == second.key and not first.is_whole


def test_sizes_that_do_not_do() -> None:
    """A module that needs more than the smallest inputs is run on the usual ones."""

    class Needs(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[7:]

    class Fails(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[0] < 8:
                raise ValueError("too few")
            return super().forward(x)

    few, many = execute(Needs(4, 2), INPUTS), execute(Fails(4, 2), INPUTS)
    assert few is not None and few.inputs[0].shape[0] == 2
    assert many is not None and many.inputs[0].shape[0] == 8
