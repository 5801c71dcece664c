"""The rehearsal of the zoo: each artifact's own engines on a GPU of this machine, against eager.

    pytest tests/gpu/test_zoo_rehearsal.py -m "" -s

prints a table with the name of the GPU. The reference is the model in float64 where it can run so, else as it is. Eager
itself is held against the same reference, in its own precision and with TF32, so that what rounding costs is told apart
from what the engine costs: random weights amplify both alike.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from zoo.entry import Entry
from zoo.exporting import SIZES, Exported, call, difference, export
from zoo.models import ZOO

from lightning_trt_windows import load

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="runs engines, which needs an NVIDIA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="runs engines with tensorrt-rtx"),
]

GPU = "cuda:0"
ALLOWED = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Relative norm by dtype of an output; TensorRT computes float32 with TF32."""
TF32 = 1e-3
ROUNDING = 2.0**14
"""A TF32 number has 10 bits of mantissa, a float32 one 23, and both factors of a product are rounded."""
AS_EAGER = 3.0
"""Times the error of eager with TF32: other kernels round in other places."""
ENTRIES = [
    pytest.param(entry, id=entry.name, marks=() if entry.fast else pytest.mark.zoo)
    for entry in ZOO.values()
    if entry.refused is None
]


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[list[str]]:
    """Lines of the table, printed at the end. Eager computes in full float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    lines: list[str] = []
    yield lines
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    head = ["model", *SIZES, "eager", "eager, TF32", "allowed"]
    print(f"\n\n{torch.cuda.get_device_name()}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    print("\n".join(lines))


@pytest.mark.filterwarnings("ignore:.*NVIDIA does not support it")
@pytest.mark.parametrize("entry", ENTRIES)
def test_zoo_on_a_gpu(entry: Entry, tmp_path: Path, table: list[str]) -> None:
    """The engines compute what the model does, at min, opt, max and between."""
    exported = export(entry, tmp_path)
    loaded = load(exported.artifact.path, GPU)
    eager = copied(exported.module).to(GPU)
    errors, own, own_tf32, by_dtype = [], 0.0, 0.0, 0.0
    for size in SIZES:
        args, kwargs = tree_map(on_gpu, call(exported, size))
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            usual = getattr(eager, entry.method)(*args, **kwargs)
            wanted = reference(exported, args, kwargs, usual)
            with tf32():
                own_tf32 = max(own_tf32, difference(getattr(eager, entry.method)(*args, **kwargs), wanted))
            # later calls may use kernels that were compiled meanwhile
            errors.append(max(difference(loaded(*args, **kwargs), wanted) for _ in range(3)))
        own = max(own, difference(usual, wanted))
        by_dtype = entry.tolerance or max((ALLOWED.get(t.dtype, TF32) for t in tensors(usual)), default=TF32)
    allowed = max(by_dtype, AS_EAGER * own_tf32, ROUNDING * own if by_dtype == TF32 else 0.0)
    shown = [f"{error:.1e}" for error in [*errors, own, own_tf32, allowed]]
    table.append(f"| {entry.name} | {' | '.join(shown)} |")
    assert max(errors) <= allowed, f"{max(errors):.1e} from the reference, eager {own:.1e}, with TF32 {own_tf32:.1e}"


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Eager computes float32 as TensorRT does."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def on_gpu(value: Any) -> Any:
    """Tensors on the GPU, other values as they are."""
    return value.to(GPU) if isinstance(value, Tensor) else value


def copied(module: torch.nn.Module) -> torch.nn.Module:
    """A copy, also of a module that holds what was computed from its parameters, as weight_norm's hooks leave it."""
    computed = [v for m in module.modules() for v in vars(m).values() if isinstance(v, Tensor) and not v.is_leaf]
    return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in computed})


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in a result."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def reference(exported: Exported, args: Any, kwargs: Any, usual: Any) -> Any:
    """What the model gives in float64, in the dtypes of ``usual``; ``usual`` itself where it cannot run so."""
    wide: Any = lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v  # noqa: E731
    try:
        module = copied(exported.module).to(GPU).double()
        result = getattr(module, exported.entry.method)(*tree_map(wide, args), **tree_map(wide, kwargs))
        return tree_map(lambda r, u: r.to(u.dtype) if isinstance(u, Tensor) else u, result, usual)
    # a dtype inside the model, an operator without float64
    except (RuntimeError, TypeError, ValueError):
        return usual
