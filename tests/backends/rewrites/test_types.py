"""Integers, sizes and floating numbers meet in an engine as they do in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.evaluating import check_values, compile_module
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from lightning_trt_windows.errors import CompileError

X = torch.linspace(-2, 3, 20).reshape(4, 5)
WHOLE = torch.arange(20).reshape(4, 5) % 7 + 1
BATCH = Dim("batch", min=1, max=8)
LENGTH = Dim("length", min=2, max=9)
HEIGHT = Dim("height", min=8, max=20)


def alibi(x: Tensor) -> Tensor:
    """Attention scores that fall with the distance."""
    places = torch.arange(x.shape[1])
    return x[:, :, None] - 0.25 * (places[None] - places[:, None]).abs()


OF_LENGTH: dict[str, Callable[[Tensor], Tensor]] = {
    "arange + 0.5": lambda x: x + (torch.arange(x.shape[1]) + 0.5)[None],
    "arange / T": lambda x: x + (torch.arange(x.shape[1]) / x.shape[1])[None],
    "1 / T": lambda x: x * 2 * (1 / x.shape[1]),
    "T ** -0.5": lambda x: x * 2 * (x.shape[1] ** -0.5),
    "T ** 0.5": lambda x: x * 2 / (x.shape[1] ** 0.5),
    "ALiBi": alibi,
}


@pytest.mark.parametrize("name", OF_LENGTH)
def test_sizes_and_positions(name: str) -> None:
    """What is made of a size that varies."""
    check_values(OF_LENGTH[name], X, dims=({1: LENGTH},))


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


def test_large_integers() -> None:
    """Choices between integers past 2**31."""
    large = WHOLE + 2**33
    check_values(lambda i: (torch.where(i > 2**33 + 2, i, 1), i.masked_fill(i > 2**33 + 2, -(2**40))), large)


def test_integers_beside_floats() -> None:
    """A time step beside a picture, as diffusion models have it."""
    check_values(lambda x, t: x * (t / 1000)[:, None], X, WHOLE[:, 0] * 100, dims=({0: BATCH}, {0: BATCH}))


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_low_precision_meets_integers(low: torch.dtype) -> None:
    """The type is the one that PyTorch gives."""
    evaluated = compile_module(lambda x, i: (x * i, x + 0.5, torch.atan2(x, i)), X.to(low), WHOLE)
    wanted = (X.to(low) * WHOLE, X.to(low) + 0.5, torch.atan2(X.to(low), WHOLE))
    torch.testing.assert_close(evaluated(X.to(low), WHOLE), wanted)


def test_numbers_without_axes() -> None:
    """A mean has no axes, whatever is added to it."""
    check_values(lambda x: (x.mean() + 1, x.mean(), x.sum() * 2 > 3), X, dims=({0: BATCH},))


@pytest.mark.parametrize("mode", ["nearest-exact", "nearest", "bilinear", "bicubic"])
def test_interpolation(mode: str) -> None:
    """By a factor and to a size, of a height that varies."""
    x = torch.randn(1, 2, 12, 10)
    may = ("aten.upsample_bilinear2d.vec", "aten.upsample_bicubic2d.vec")
    for options in ({"scale_factor": 2}, {"size": (7, 9)}):
        check_values(
            lambda x, options=options: F.interpolate(x, mode=mode, **options) * 1, x, dims=({2: HEIGHT},), fallback=may
        )


def test_parts_in_float64() -> None:
    """They stay in PyTorch, in float64, between engines."""
    may = ("aten._to_copy.default", "aten.mul.Tensor", "aten.add.Tensor", "aten.sub.Tensor")
    check_values(lambda x: x * 2 + ((x.double() * 1e8 + 1.0) - x.double() * 1e8).float(), X, fallback=may)
    check_values(lambda x: (x * 2, x.double() * 2), X, fallback=may)


def test_nothing_but_float64_is_refused() -> None:
    """No engine would be left."""
    with pytest.raises(CompileError, match=r"no engine in the artifact"):
        compile_module(lambda x: x.double() * 2, X)


def test_random_numbers_stay_in_pytorch() -> None:
    """An engine would hold the numbers of its build."""
    evaluated = compile_module(lambda x: x * 2 + torch.rand_like(x), X)
    assert not torch.equal(evaluated(X), evaluated(X))


def test_complex_numbers() -> None:
    """Chains of FFTs stay in PyTorch, between engines; results may be complex."""
    may = ("aten._fft_r2c.default", "aten._fft_c2r.default", "aten._fft_c2c.default", "aten._to_copy.default",
           "aten.view_as_real.default")  # fmt: skip
    check_values(lambda x: torch.fft.irfft(torch.fft.rfft(x * 2), n=5) * 2, X, fallback=may)
    check_values(lambda x: torch.fft.fft2(x * 2).real * 2, X, fallback=may)
    check_values(lambda x: (x * 2, torch.fft.rfft(x * 2)), X, fallback=may)


def test_recurrent_cells() -> None:
    """Cells run in one engine: upstream has no converter for the split that they make."""
    check_values(nn.LSTMCell(5, 3), X)
    check_values(nn.GRUCell(5, 3), X)
