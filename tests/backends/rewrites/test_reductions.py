"""Reductions, and what splits and orders, give in an engine what they give in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor, nn
from torch.export import Dim

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)
TWO = Dim("batch", min=2, max=8)

OF_A_BATCH: dict[str, Callable[[Tensor], Any]] = {
    "max, min": lambda x: (*x.max(1), *x.min(1)),
    "all": lambda x: ((x > 0).all(1), (x > -9).all()),
    "var, std_mean": lambda x: (x.var(1), *torch.std_mean(x, 1), *torch.var_mean(x, 1, correction=0)),
    "cumprod": lambda x: x.cumprod(1),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5, 1.0])),
    "isin": lambda x: torch.isin(x, X[0]),
    "tril, roll, repeat": lambda x: (x.tril(), x.roll(1, 1), x.repeat_interleave(2, 1)),
    "sort, topk": lambda x: (*x.topk(3, 1), x.argsort(1)),
}


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_with_a_varying_batch(name: str) -> None:
    """At one, at a few and at many."""
    check_values(OF_A_BATCH[name], X, dims=({0: BATCH},))


def test_over_the_batch() -> None:
    """The number of elements is the batch's, not the trace's."""
    check_values(lambda x: (x.std(0), x.var(0), x.std()), X, dims=({0: TWO},))


def test_gather() -> None:
    """Along an axis, of sizes that vary."""
    index = torch.tensor([[0, 1, 4]]).expand(4, 3).contiguous()
    check_values(lambda x, i: x.gather(1, i) * 1, X, index, dims=({0: BATCH}, {0: BATCH}))
    check_values(lambda x, i: x.gather(1, i) * 1, X, index, dims=({1: Dim("length", min=5, max=9)}, None))


def test_distances() -> None:
    """Of every pair of rows, in every norm."""
    for p in (1.0, 2.0, 3.0, float("inf")):
        check_values(lambda x, y, p=p: torch.cdist(x, y, p), X, X[:3] + 0.5, dims=({0: BATCH}, None))


def test_recurrent_cells() -> None:
    """Cells run in one engine: upstream has no converter for the split that they make."""
    check_values(nn.LSTMCell(5, 3), X)
    check_values(nn.GRUCell(5, 3), X)


def test_places_of_flags() -> None:
    """The largest and the smallest of booleans."""
    flags = torch.tensor([[False, True, False], [False, False, False], [True, True, True]])
    check_values(
        lambda x: (x.max(1), x.min(1, keepdim=True)), flags, fallback=("aten.amax.default", "aten.amin.default")
    )
