"""Converters of our own: choices between int64, sums of integers, lookups, rows from the end."""

from __future__ import annotations

import pytest
import torch
from support.evaluating import check_values, compile_module, differences
from torch.export import Dim

from lightning_trt_windows._compat.torch_tensorrt import upstream
from lightning_trt_windows.backends.rewrites import own_converters

WHOLE = torch.arange(20).reshape(4, 5) % 7 + 1
BATCH = Dim("batch", min=1, max=8)
LENGTH = Dim("length", min=2, max=9)


def test_large_integers() -> None:
    """Choices between integers past 2**31."""
    large = WHOLE + 2**33
    check_values(lambda i: (torch.where(i > 2**33 + 2, i, 1), i.masked_fill(i > 2**33 + 2, -(2**40))), large)


def test_choices_of_other_shapes() -> None:
    """A condition, a tensor and a number with axes of their own."""
    check_values(
        lambda i: torch.where(i[:, :1] > 2, i, torch.tensor(2**40)), WHOLE + 2**33, dims=({0: BATCH, 1: LENGTH},)
    )


def test_sums_of_integers() -> None:
    """Past 2**24, where float32 has no odd numbers, along either axis and of booleans."""
    check_values(
        lambda i: ((i + 2**26).cumsum(-1), (i + 2**26).cumsum(0), (i > 2).cumsum(1)), WHOLE, dims=({0: BATCH},)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sums_of_floating_numbers(dtype: torch.dtype) -> None:
    """Along either axis, in real engines, and without a loop."""
    x = torch.linspace(-2, 3, 20).reshape(4, 5).to(dtype)
    evaluated = compile_module(lambda x: (x.cumsum(-1) * 2, x.cumsum(0) * 2), x, dims=({0: BATCH},), build=True)
    assert not evaluated.compiled.fallback_ops
    assert "CUMULATIVE" in evaluated.layers() and "LOOP_OUTPUT" not in evaluated.layers()
    for rows in (1, 3, 8):
        given = x[torch.arange(rows) % 4]
        assert differences(evaluated, lambda x: (x.cumsum(-1) * 2, x.cumsum(0) * 2), given, tolerance=1e-2) == []


def test_rows_from_the_end() -> None:
    """Of axes that vary and of such that do not."""
    check_values(lambda i: (i[:, -2] + 1, i[-1] + 1, i[0] + 1), WHOLE, dims=({0: BATCH, 1: LENGTH},))


def test_only_while_a_program_is_compiled() -> None:
    """Upstream's registry is afterwards what it was, for whoever else uses it in the process."""
    registry = upstream().CONVERTERS.registries[0]
    before = {target: list(found) for target, found in registry.items()}
    with own_converters(upstream()):
        assert registry[torch.ops.aten.where.self] != before[torch.ops.aten.where.self]
    compile_module(lambda i: i.cumsum(1) + 1, WHOLE)
    assert {target: list(found) for target, found in registry.items()} == before
