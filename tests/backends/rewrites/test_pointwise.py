"""Functions of single numbers give in an engine what they give in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.evaluating import check_values, compile_module
from torch import Tensor
from torch.export import Dim
from torch.nn import functional as F

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)

OF_A_BATCH: dict[str, Callable[[Tensor], Any]] = {
    "log1p": lambda x: (torch.log1p(x.abs() * 1e-5), torch.log1p(x.abs() * 100)),
    "expm1": lambda x: (torch.expm1(x * 1e-5), torch.expm1(x * 3)),
    "exp2": torch.exp2,
    "softplus": lambda x: (F.softplus(x * 5, beta=2, threshold=1), F.softplus(x * 50)),
    "signbit": lambda x: torch.signbit(x) | (x > 2),
    "reciprocal, rsqrt": lambda x: ((x + 9).reciprocal(), (x + 9).rsqrt()),
}


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_with_a_varying_batch(name: str) -> None:
    """At one, at a few and at many."""
    check_values(OF_A_BATCH[name], X, dims=({0: BATCH},))


def test_functions_of_two() -> None:
    """With zeros of both signs, infinities and NaN."""
    y = torch.tensor([-0.0, 0.0, -0.0, 0.0, 1, -1, 2.0, 0, -3, float("inf"), float("nan")])
    x = torch.tensor([-1.0, -1, 1, 1, 0, 0, -1, 0.0, 2, -float("inf"), float("inf")])
    check_values(torch.atan2, y[:9], x[:9])
    check_values(lambda y, x: (torch.hypot(y, x), torch.fmax(y, x), torch.fmin(y, x)), y, x)
    check_values(torch.copysign, x[:9], y[:9])


def test_bits_with_numbers() -> None:
    """TensorRT knows them of booleans only: what is done with the bits of integers is right in PyTorch."""
    i = torch.arange(20).reshape(4, 5)
    may = tuple(f"aten.bitwise_{name}.Tensor" for name in ("and", "or", "xor"))
    check_values(lambda i: ((i & 6) + 1, (i | 9) + 1, (i ^ 5) + 1, (6 & i) + 1), i, dims=({0: BATCH},), fallback=may)
    check_values(lambda i: ((i > 2) & True, (i > 2) | False, (i > 2) ^ True), i, dims=({0: BATCH},))


def test_whole_powers() -> None:
    """Of integers, by multiplication: to the last digit."""
    check_values(lambda i: ((i + 2**20) ** 2, i**3, (i - 9) ** 5), torch.arange(20).reshape(4, 5), dims=({0: BATCH},))


def test_quotients_rounded_down() -> None:
    """Of integers by broken numbers, and of numbers by integers."""
    i = torch.arange(1, 21).reshape(4, 5)
    check_values(lambda i: (i // 2.5, 2.5 // i, 7 // i, -7 // i, 7 // (i * 0.3)), i, dims=({0: BATCH},))


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_grids_in_low_precision(low: torch.dtype) -> None:
    """Coordinates keep their digits: in bfloat16 they would be off by pixels."""
    x = torch.randn(1, 2, 40, 40).to(low)
    grid = (torch.rand(1, 9, 9, 2) * 2 - 1).to(low)

    def sampled(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, align_corners=False)

    exact = sampled(x.float(), grid.float())
    torch.testing.assert_close(compile_module(sampled, x, grid)(x, grid).float(), exact, rtol=1e-2, atol=1e-2)


def test_powers_of_two() -> None:
    """In the type of the exponent: bfloat16 rounds them before they meet float32."""
    exponent, may = X.bfloat16(), ("aten.ldexp.Tensor",)
    check_values(lambda x, e: (torch.ldexp(x, e), torch.ldexp(x.half(), e)), X, exponent)
    check_values(torch.ldexp, torch.arange(20).reshape(4, 5), exponent)
    check_values(lambda x, i: torch.ldexp(x * 2, i) * 2, X.half(), torch.arange(20).reshape(4, 5), fallback=may)


def test_powers_of_flags() -> None:
    """A flag to the power of a flag is a flag."""
    may = ("aten.clone.default",)
    check_values(
        lambda x: (x**True, x**False, (x**2) + 1, torch.pow(x, True) & x), X > 0, dims=({0: BATCH},), fallback=may
    )


def test_whole_parts_and_remainders_of_half_types() -> None:
    """As eager gives them, which computes in float32."""
    for dtype in (torch.bfloat16, torch.float16):
        x, y = torch.linspace(-9, 9, 36).to(dtype), torch.linspace(4, 3, 36).to(dtype)
        check_values(lambda x, y: (torch.trunc(x * 1), torch.remainder(x, y), x % 2.5, 7 % y), x, y)
