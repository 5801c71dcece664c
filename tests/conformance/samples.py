"""Samples of PyTorch's own operator and module databases, each a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

__all__ = ["Sample", "binary_pairs", "module_samples", "operator_samples", "slice_assignments", "tensors_of"]

TAKEN = {torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool, torch.int8, torch.uint8}
"""Types of inputs that an artifact takes."""
_MOST = 400
"""Samples of one operator that are looked at before the choice."""
_LARGEST = 60_000
"""Elements of a tensor in a sample."""


@dataclass
class Sample:
    """One call of an operator: what it computes, of which tensors."""

    function: Callable[..., Any]
    tensors: list[Tensor]
    label: str
    """Shapes and other arguments."""
    module: nn.Module | None = None
    """The module whose weights ``function`` uses, if it is one."""


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors in a result of any structure."""
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def operator_samples(operator: Any, dtype: torch.dtype, count: int) -> list[Sample] | None:
    """Up to ``count`` samples with axes, and one without, unlike each other; ``None`` where it draws random numbers."""
    torch.manual_seed(0)
    found: list[Sample] = []
    seen: set[Any] = set()
    for number, given in enumerate(operator.sample_inputs("cpu", dtype, requires_grad=False)):
        if number > _MOST or len(found) >= count * 6:
            break
        sample = _sample(operator, (given.input, given.args, given.kwargs))
        if sample is None:
            continue
        key = (tuple((t.dim(), t.dtype) for t in sample.tensors), sample.label.partition("] ")[2])
        if key in seen:
            continue
        seen.add(key)
        first, second = (_computed(sample, seed) for seed in (1, 2))
        if not first or second is None or any(t.numel() == 0 for t in first):
            continue
        if any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second)):
            return None
        found.append(sample)
    without_axes = [sample for sample in found if sample.tensors[0].dim() == 0][:1]
    return _spread([sample for sample in found if sample.tensors[0].dim() > 0], count) + without_axes


def _sample(operator: Any, arguments: Any) -> Sample | None:
    flat, structure = tree_flatten(arguments)
    places = [i for i, value in enumerate(flat) if isinstance(value, Tensor)]
    tensors = [flat[i].detach().clone().contiguous() for i in places if not flat[i].is_sparse]
    if not tensors or len(tensors) != len(places) or any(t.dtype not in TAKEN for t in tensors):
        return None
    if any(not 0 < t.numel() <= _LARGEST for t in tensors):
        return None

    def function(*given: Tensor) -> Any:
        values = list(flat)
        for place, tensor in zip(places, given):
            values[place] = tensor
        first, args, kwargs = tree_unflatten(values, structure)
        return operator(first, *args, **kwargs)

    others = ", ".join(repr(value) for value in flat if not isinstance(value, Tensor))
    return Sample(function, tensors, f"{[tuple(t.shape) for t in tensors]} {others}"[:200])


def _computed(sample: Sample, seed: int) -> list[Tensor] | None:
    torch.manual_seed(seed)
    try:
        with torch.no_grad():
            return tensors_of(sample.function(*(t.clone() for t in sample.tensors)))
    # a sample that eager refuses is none
    except Exception:
        return None


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    if len(samples) <= count:
        return samples
    step = (len(samples) - 1) / (count - 1) if count > 1 else 0
    return [samples[round(i * step)] for i in range(count)]


def module_samples(info: Any, dtype: torch.dtype, count: int) -> list[Sample]:
    """Up to ``count`` samples of a module in eval mode."""
    torch.manual_seed(0)
    found: list[Sample] = []
    seen: set[Any] = set()
    for given in info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=False):
        if given.forward_input is None:
            continue
        constructor = given.constructor_input
        try:
            module = info.module_cls(*constructor.args, **constructor.kwargs).to(dtype).eval()
        except Exception:  # a constructor that refuses this type
            continue
        sample = _sample(_of_module(module), (None, given.forward_input.args, given.forward_input.kwargs))
        if sample is None:
            continue
        sample.module = module
        words = [repr(v)[:40] for v in constructor.args]
        words += [f"{k}={v!r}"[:60] for k, v in constructor.kwargs.items() if k not in ("device", "dtype")]
        key = (tuple(t.dim() for t in sample.tensors), tuple(words))
        if key in seen or not _computed(sample, 1):
            continue
        seen.add(key)
        sample.label = f"{[tuple(t.shape) for t in sample.tensors]} ({', '.join(words)})"[:250]
        found.append(sample)
    return _spread(found, count)


def _of_module(module: nn.Module) -> Callable[..., Any]:
    return lambda first, *args, **kwargs: module(*args, **kwargs)


# --- pairs of types

_WHOLE = [[1, 2, 3], [5, 7, 4]]
_BROKEN = [[1.5, 0.25, 3.0], [0.5, 2.75, 0.125]]


def _operands() -> dict[str, Any]:
    tensors: dict[str, Any] = {
        name: torch.tensor(_WHOLE, dtype=dtype)
        for name, dtype in (("int64", torch.int64), ("int32", torch.int32), ("uint8", torch.uint8))
    }
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        tensors[name] = torch.tensor(_BROKEN, dtype=dtype)
    tensors["bool"] = torch.tensor([[True, False, True], [False, True, True]])
    tensors["float32 without axes"] = torch.tensor(2.5)
    tensors["int64 without axes"] = torch.tensor(3)
    return tensors | {"2.5": 2.5, "0.5": 0.5, "2": 2, "-3": -3, "True": True}


def binary_pairs(operator: Any) -> Iterator[Sample]:
    """One binary operator with all pairs of types: tensors, tensors without axes, numbers."""
    operands = _operands()
    for left, first in operands.items():
        for right, second in operands.items():
            if isinstance(first, Tensor) or isinstance(second, Tensor):
                sample = _sample(lambda _, a, b: operator.op(a, b), (None, (first, second), {}))
                if sample is not None and _computed(sample, 1):
                    sample.label = f"({left}, {right})"
                    yield sample


# --- assignments to slices

_PLACES = (
    ":", "0", "-1", "1:", ":2", "-2:", ":-1", "1:3", "::2", "1::2", "..., 0", "..., -1", "..., 1:", "..., -2:", ":, 0",
    ":, -1", ":, 1:", ":, :-1", ":, 1:3", ":, ::2", "0, 1", "-1, -1", "1:3, 1:3", ":, [0, 2]", "[0, 1]", ":, [0, -1]",
)  # fmt: skip
_WAYS = ("x[{}] = 0.0", "x[{}] = True", "x[{}] += 1", "x[{}] *= 2", "x[{}] = y[{}]", "x[{}] = y[{}].sum()")


def slice_assignments(dtype: torch.dtype) -> Iterator[Sample]:
    """Assignments to parts of a tensor in every form: places, and what is assigned."""
    forms = [way.replace("{}", place) for place in _PLACES for way in _WAYS]
    forms += ["x[x > 0] = 0", "x[x > 0] *= 2", "x[:, y[0] > 0] = 1", "x.copy_(y[0])", "x.copy_(y)", "x.fill_(2)"]
    for form in forms:
        names: dict[str, Any] = {}
        exec(f"def function(_, x, y):\n    x = x.clone()\n    {form}\n    return x * 1", names)
        torch.manual_seed(0)
        values = [torch.randn(4, 5), torch.randn(4, 5)]
        tensors = tuple(v > 0 if dtype is torch.bool else (v * 3).to(dtype) for v in values)
        sample = _sample(names["function"], (None, tensors, {}))
        if sample is not None and _computed(sample, 1):
            sample.label = form
            yield sample


def operators() -> Sequence[Any]:
    """PyTorch's operator database."""
    from torch.testing._internal.common_methods_invocations import op_db

    return op_db


def modules() -> Sequence[Any]:
    """PyTorch's module database."""
    from torch.testing._internal.common_modules import module_db

    return module_db
