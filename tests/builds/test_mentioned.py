"""What code names, and what of that is taken down."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.builds.execution import execute
from lightning_trt_windows.builds.mentioned import mentioned


class Limited(nn.Module):
    """Compares sizes with numbers from several places."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 100
        self.config = SimpleNamespace(most=50, other=1)
        self.unread = 3
        self.calls = 0
        self.kept = torch.zeros(3)

    @property
    def longest(self) -> int:
        return min(self.limit, 1000)

    def inner(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[0] <= self.config.most else -x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(x) if x.shape[0] <= self.longest else x + 1


class Outer(nn.Module):
    """Has one inside."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Limited()
        self.names = ["a", "b"]

    def forward(self, x: torch.Tensor) -> Any:
        return [self.part(x) for _ in self.names]


def test_names() -> None:
    """Attributes through methods and properties, configurations, submodules; no counters, and nothing else."""
    assert mentioned(Limited(), "forward") == [".config.most = 50", ".limit = 100"]
    assert mentioned(Limited(), "inner") == [".config.most = 50"]
    assert mentioned(Outer(), "forward") == [".names = ['a', 'b']", "part.config.most = 50", "part.limit = 100"]
    assert mentioned(nn.Linear(2, 2), "forward") == []


def test_a_branch_at_other_sizes() -> None:
    """A limit that lies within the range from now on changes what a run says, although the run went the same way."""
    module, inputs = Limited(), {"x": InputSpec((DimRange(1, 8, 32),))}
    first = execute(module, inputs)
    module.unread = 4
    same = execute(module, inputs)
    module.limit = 20
    other = execute(module, inputs)
    assert first is not None and same is not None and other is not None
    assert first.key == same.key != other.key
