"""Integers, booleans and floating numbers meet in an engine as they do in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.evaluating import check_values, compile_module
from torch import Tensor
from torch.export import Dim

X = torch.linspace(-2, 3, 20).reshape(4, 5)
WHOLE = torch.arange(20).reshape(4, 5) % 7 + 1
BATCH = Dim("batch", min=1, max=8)


INTEGERS: dict[str, Callable[[Tensor], Any]] = {
    "i * 0.5": lambda i: i * 0.5,
    "i / 1000": lambda i: i / 1000,
    "i / i": lambda i: i.sum(1) / ((i > 2).long().sum(1) + 1),
    "i // 3, i % 3": lambda i: (i // 3, i % 3, (i - 4) // 3, (i - 4) % 3),
    "i ** 2, i ** 0.5": lambda i: (i**2, i**0.5),
    "comparison": lambda i: (i > 2.5, i == 3, i <= 2.0),
    "where": lambda i: (torch.where(i > 2, i, 0.5), torch.where(i > 2, i + 1, i)),
    "cumsum": lambda i: ((i + 2**26).cumsum(1), (i > 2).cumsum(0)),
    "sums": lambda i: (i.sum(1), (i > 2).sum(), i.prod(1)),
    "clamp": lambda i: i.clamp(2, 3),
    "reciprocal": lambda i: (i.reciprocal(), i.rsqrt()),
    "functions": lambda i: (i.sqrt(), i.exp(), i.sin(), i.cos(), i.tanh(), i.sigmoid(), i.log(), i.erf()),
    "booleans": lambda i: ((i > 2) * (i < 5), (i > 2) & True, (i > 2) ^ (i < 5), (i > 2) + 1),
}


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_integers(name: str, dtype: torch.dtype) -> None:
    """What is computed of integers, to the last digit where it is an integer."""
    check_values(INTEGERS[name], WHOLE.to(dtype), dims=({0: BATCH},))


def test_integers_beside_floats() -> None:
    """A time step beside a picture, as diffusion models have it."""
    check_values(lambda x, t: x * (t / 1000)[:, None], X, WHOLE[:, 0] * 100, dims=({0: BATCH}, {0: BATCH}))


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_low_precision_meets_integers(low: torch.dtype) -> None:
    """The type is the one that PyTorch gives."""
    evaluated = compile_module(lambda x, i: (x * i, x + 0.5, torch.atan2(x, i)), X.to(low), WHOLE)
    wanted = (X.to(low) * WHOLE, X.to(low) + 0.5, torch.atan2(X.to(low), WHOLE))
    torch.testing.assert_close(evaluated(X.to(low), WHOLE), wanted)
