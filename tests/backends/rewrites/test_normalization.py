"""Normalisations give in an engine what they give in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)

OF_A_BATCH: dict[str, Callable[[Tensor], Any]] = {
    "log_softmax": lambda x: F.log_softmax(x * 100, -1),
    "log_softmax over the batch": lambda x: F.log_softmax(x, 0),
    "logsumexp": lambda x: (x * 50).logsumexp(1),
    "norms": lambda x: (x.norm(dim=1), F.normalize(x, dim=1)),
}


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_with_a_varying_batch(name: str) -> None:
    """At one, at a few and at many."""
    check_values(OF_A_BATCH[name], X, dims=({0: BATCH},))


def test_statistics_of_the_batch() -> None:
    """BatchNorm without running statistics divides by the deviation of the batch that it is given."""
    check_values(nn.BatchNorm2d(3, track_running_stats=False), torch.randn(4, 3, 5, 5) * 10 + 3, dims=({0: BATCH},))
    check_values(nn.BatchNorm1d(3, track_running_stats=False), torch.randn(4, 3, 5))
    check_values(nn.InstanceNorm2d(3), torch.randn(4, 3, 5, 5) * 10 + 3, dims=({0: BATCH},))


def test_of_few_axes() -> None:
    """Where TensorRT's layers want more of them."""
    check_values(lambda x: torch.softmax(x, 0), X[0])
    check_values(lambda x: F.log_softmax(x, 0), X[0])
    check_values(nn.GroupNorm(2, 6), torch.randn(4, 6))
