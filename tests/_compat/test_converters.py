"""Each fault of a converter is still there in the installed Torch-TensorRT; a failure here says: delete the rewrite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from support.evaluating import compile_module, differences
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from lightning_trt_windows._compat import converters
from lightning_trt_windows._compat import torch_tensorrt as compat
from lightning_trt_windows.backends import compiler, engine
from lightning_trt_windows.errors import CompileError

BATCH = Dim("batch", min=1, max=8)
LENGTH = Dim("length", min=2, max=9)


@contextlib.contextmanager
def upstream_alone() -> Iterator[None]:
    """Nothing of ours between the captured program and upstream's converters."""
    with (
        mock.patch.object(compiler, "OWN_DECOMPOSITIONS", {}),
        mock.patch.object(compiler, "rewrite", lambda lowered: None),
        mock.patch.object(compiler, "own_converters", lambda blocks: contextlib.nullcontext()),
        mock.patch.object(compiler, "of_types_without_engines", lambda lowered, takes_double: frozenset()),
        mock.patch.object(
            compiler, "lower", lambda blocks, program, settings: blocks.post_lowering(program.module(), settings)
        ),
        mock.patch.object(engine, "as_traced", lambda blocks, network, node, result: result),
    ):
        yield


def assigned(source: str) -> Callable[..., Tensor]:
    """A function that assigns to a part of a copy of ``x``."""
    names: dict[str, Any] = {}
    exec(f"def function(x, v=None):\n    x = x.clone()\n    {source}\n    return x * 1", names)
    function: Callable[..., Tensor] = names["function"]
    return function


def last_token(h: Tensor, ids: Tensor) -> Tensor:
    """The token before the first padding, which is the last one where there is none."""
    return h[torch.arange(h.shape[0]), ids.eq(0).int().argmax(1) - 1] * 1


X = torch.linspace(-2, 3, 20).reshape(4, 5)
QUERY, KEY = torch.randn(2, 2, 3, 8), torch.randn(2, 2, 6, 8)

CASES: dict[str, tuple[Any, ...]] = {
    "INTEGERS_MEET_NUMBERS": (lambda x: x + (torch.arange(x.shape[1]) + 0.5), (X,), ({1: LENGTH},)),
    "SIZES_DIVIDE_AS_INTEGERS": (lambda x: x * 2 * (1 / x.shape[1]), (X,), ({1: LENGTH},)),
    "ADAPTIVE_POOLING_OF_OTHER_WINDOWS": (lambda x: F.adaptive_avg_pool2d(x, 7), (torch.randn(1, 2, 9, 9),), None),
    "CAUSAL_MASK_IS_LOWER_RIGHT": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
        (QUERY, KEY),
        None,
    ),
    "NEGATIVE_INDICES_ARE_FLATTENED": (
        last_token,
        (torch.randn(4, 5, 6), torch.ones(4, 5, dtype=torch.int64)),
        ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: LENGTH}),
    ),
    "COPY_KEEPS_THE_SHAPE_OF_ITS_SOURCE": (assigned("x[:, 0] = 0."), (X,), None),
    "LAST_PART_IS_AN_EMPTY_SLICE": (assigned("x[:, -1] = v"), (X, torch.ones(4)), None),
    "BATCH_STATISTICS_ARE_NOT_COMPUTED": (
        nn.BatchNorm2d(3, track_running_stats=False),
        (torch.randn(4, 3, 5, 5) * 10 + 3,),
        None,
    ),
    "INDEX_COPY_COUNTS_FROM_THE_FRONT": (lambda x, i: x.index_fill(-1, i, 9.0) * 1, (X, torch.tensor([3, 0])), None),
    "LOG_SOFTMAX_UNDERFLOWS": (lambda x: F.log_softmax(x * 100, -1), (X,), None),
    "SCATTERED_MEANS_ARE_TRUNCATED": (
        lambda x, i: (x * 1).scatter_reduce(1, i, x * 0.3, "mean") * 1,
        (X, torch.zeros(4, 3, dtype=torch.int64)),
        None,
    ),
    "INTEGERS_ARE_CHOSEN_IN_INT32": (
        lambda x, i: torch.where(x > 0, i, i + 1) * 1,
        (X, torch.full((4, 5), 2**33)),
        None,
    ),
    "INTEGERS_ARE_SUMMED_IN_FLOAT32": (lambda i: i.cumsum(1), (torch.arange(20).reshape(4, 5) + 2**26,), None),
    "REMAINDERS_OF_ROUNDED_QUOTIENTS": (
        torch.remainder,
        (torch.linspace(1, 9, 40).bfloat16(), torch.linspace(4, 3, 40).bfloat16()),
        None,
    ),
    "TRUNCATION_ROUNDS_HALVES": (lambda x: torch.trunc(x * 1), (torch.linspace(-9, 9, 73).bfloat16(),), None),
    "SOFTPLUS_HAS_NO_THRESHOLD": (lambda x: F.softplus(x, threshold=1), (X,), None),
    "NUMBERS_HAVE_AN_AXIS": (lambda x: x.mean() + 1, (X,), None),
    "STRIDES_OF_THE_TRACE": (lambda x: x.permute(0, 2, 1).unfold(-1, 4, 2) * 1, (torch.randn(3, 16, 5),), None),
    "ATAN2_HAS_NO_SIGNED_ZEROS": (torch.atan2, (torch.tensor([-0.0, 1.0]), torch.tensor([-1.0, 0.0])), None),
    "EMPTY_TENSORS_WANT_A_GPU": (lambda x: torch.empty_like(x).fill_(2.0) + x, (X,), None),
    "DEVIATIONS_FIX_THE_BATCH": (lambda x: x.std(0) * 1, (X,), ({0: Dim("batch", min=2, max=8)},)),
    "NORMALISATIONS_HIDE_STATISTICS": (lambda x: torch.native_layer_norm(x, [5], None, None, 1e-5), (X,), None),
    "FFTS_FAIL_TO_LOWER": (lambda x: torch.fft.irfft(torch.fft.rfft(x), n=5) * 2, (X,), None),
    "FLOAT64_BECOMES_FLOAT32": (
        lambda x: x * 2 + ((x.double() * 1e8 + 1.0) - x.double() * 1e8).float(),
        (X,),
        None,
    ),
}


@pytest.mark.parametrize("name", sorted(set(converters.__all__)))
def test_upstream_still_computes_something_else(name: str) -> None:
    """Without the rewrite the result is wrong, or there is none; with it, it is what eager gives."""
    function, args, dims = CASES[name]
    args = tuple(arg.clone() for arg in args)
    workaround = getattr(converters, name)
    if name == "FFTS_FAIL_TO_LOWER" and not workaround.needed_by(compat.upstream().version):
        pytest.skip("older releases lower complex numbers wrongly, and they are refused")
    assert differences(compile_module(function, *args, dims=dims), function, *args) == []
    if not workaround.needed_by(compat.upstream().version):
        return
    if name == "EMPTY_TENSORS_WANT_A_GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU here, and upstream finds it")
    with upstream_alone():
        try:
            evaluated = compile_module(function, *args, dims=dims)
        except CompileError:
            return
        assert differences(evaluated, function, *args), (
            f"delete the rewrite for {name}: upstream gives what eager gives"
        )
