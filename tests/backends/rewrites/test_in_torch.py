"""What no engine holds stays in PyTorch, in its own types: float64, complex and random numbers."""

from __future__ import annotations

import pytest
import torch
from support.evaluating import check_values, compile_module
from torch.export import Dim

from lightning_trt_windows.errors import CompileError

ROWS = Dim("rows", min=3, max=8)
X = torch.linspace(-2, 3, 20).reshape(4, 5)


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


def test_pairs_of_rows() -> None:
    """Of a number of rows that varies, which may be one, and that has no pairs."""
    may = ("aten._pdist_forward.default",)
    check_values(lambda x: (torch.pdist(x * 2) * 2, x * 3), X, dims=({0: ROWS},), fallback=may)


def test_complex_numbers() -> None:
    """Chains of FFTs stay in PyTorch, between engines."""
    may = ("aten._fft_r2c.default", "aten._fft_c2r.default", "aten._fft_c2c.default", "aten._to_copy.default",
           "aten.view_as_real.default")  # fmt: skip
    check_values(lambda x: torch.fft.irfft(torch.fft.rfft(x * 2), n=5) * 2, X, fallback=may)
    check_values(lambda x: torch.fft.fft2(x * 2).real * 2, X, fallback=may)


def test_large_powers_of_integers() -> None:
    """TensorRT's power is of floating numbers, which lose digits."""
    check_values(lambda i: (i + 1) ** 9 * 2, torch.arange(20), fallback=("aten.pow.Tensor_Scalar",))
