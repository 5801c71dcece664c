"""Assignments to parts of a tensor give in an engine what they give in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor
from torch.export import Dim

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)
LENGTH = Dim("length", min=3, max=9)
LONG = torch.tensor([3, 0])


def assigned(source: str) -> Callable[..., Tensor]:
    """A function that assigns to a part of a copy of ``x``."""
    names: dict[str, Any] = {}
    exec(f"def function(x, v=None):\n    x = x.clone()\n    {source}\n    return x * 1", names)
    function: Callable[..., Tensor] = names["function"]
    return function


NUMBERS = (
    "x[:, 0] = 0.0", "x[:] = 0.0", "x[..., -1] += 1", "x[..., 1:] *= 3", "x[:, -2:] *= 3", "x[:, :-1] = 7.0",
    "x[x > 0] = 0.0", "x[:, [0, -1]] = 1.0", "x[:, ::2] += 1", "x[:, 1:] = x[:, :-1].clone()", "x[..., 1:3] = 2.0",
)  # fmt: skip
TENSORS = (
    ("x[:, -1] = v", torch.arange(4.0)),
    ("x[:, 2:] = v", torch.arange(12.0).reshape(4, 3)),
    ("x[:, -2:] = v", torch.arange(8.0).reshape(4, 2)),
    ("x[:, ::2] = v", torch.arange(12.0).reshape(4, 3)),
    ("x[:, 1:3] = v", torch.arange(8.0).reshape(4, 2)),
)


@pytest.mark.parametrize("source", NUMBERS)
@pytest.mark.parametrize("dims", [({0: BATCH},), ({1: LENGTH},)], ids=["batch", "length"])
def test_numbers(source: str, dims: Any) -> None:
    """A number goes into every place, whichever axis varies."""
    check_values(assigned(source), X, dims=dims)


@pytest.mark.parametrize(("source", "value"), TENSORS)
@pytest.mark.parametrize("batch", [False, True], ids=["fixed", "batch"])
def test_tensors(source: str, value: Tensor, batch: bool) -> None:
    """So does a tensor."""
    check_values(assigned(source), X, value, dims=({0: BATCH}, {0: BATCH}) if batch else None)


@pytest.mark.parametrize(
    ("source", "value"), [("x[-1] = v", torch.ones(5)), ("x.copy_(v)", torch.ones(5)), ("x[0, 1] = 7.0", None)]
)
def test_rows(source: str, value: Tensor | None) -> None:
    """Whole rows, single elements, and a row that is copied into every one."""
    check_values(assigned(source), X, *([] if value is None else [value]))


def test_masks() -> None:
    """A mask of booleans is assigned to as numbers are."""
    check_values(lambda mask, x: assigned("x[:, 0] = True")(mask).bool() | (x > 0), X > 0, X)


def test_index_copy_and_fill() -> None:
    """A negative axis is counted from the end, and a cache of four axes is copied."""
    check_values(lambda x, i, v: x.index_copy(-1, i, v) * 1, X, LONG, torch.ones(4, 2))
    check_values(lambda x, i: x.index_fill(-1, i, 9.0) * 1, X, LONG, dims=({0: BATCH}, None))
    cache, key = torch.zeros(1, 2, 8, 4), torch.ones(1, 2, 1, 4)
    check_values(lambda x, i, v: x.index_copy(2, i, v) * 1, cache, torch.tensor([3]), key)


def test_scatter() -> None:
    """Numbers, longer sources, and sums in a few rows; other reductions stay in PyTorch, and are right."""
    index = torch.tensor([[0, 1, 2], [2, 0, 1]])
    check_values(lambda x, i, v: x.scatter(1, i, v) * 1, torch.zeros(4, 3), index, torch.arange(20.0).reshape(4, 5))
    check_values(lambda x, i: x.scatter(1, i, 2.0) * 1, X, torch.zeros(4, 1, dtype=torch.int64), dims=({0: BATCH},) * 2)
    check_values(lambda x, i, v: x.scatter_add(0, i, v) * 1, torch.zeros(4, 3), index, torch.ones(2, 3))
    for reduce in ("mean", "amax"):
        check_values(
            lambda x, i, v, reduce=reduce: x.scatter_reduce(1, i, v, reduce, include_self=False) * 1,
            X,
            torch.zeros(4, 3, dtype=torch.int64),
            torch.arange(12.0).reshape(4, 3),
            fallback=("aten.scatter_reduce.two",),
        )


def test_what_a_mask_chooses() -> None:
    """As many values as the mask has true ones, which may be none; they are looked up and put back in PyTorch."""
    may = ("aten.clone.default", "aten.index.Tensor", "aten.index_put.default")
    doubled = assigned("x[x > 0] *= 2")
    check_values(doubled, X, dims=({0: BATCH},), fallback=may)
    check_values(doubled, -X.abs(), dims=({0: BATCH},), fallback=may)
