"""Compile samples, evaluate their networks, and say what came of each."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from support.evaluating import Evaluated, compile_evaluated
from support.simulation import run_with
from torch import Tensor, nn
from torch.export import ExportedProgram

from conformance.samples import Sample, tensors_of
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.backends.rewrites.in_torch import draws_random_numbers
from lightning_trt_windows.capture.program import DimensionError, capture
from lightning_trt_windows.errors import CaptureError, LightningTrtError
from lightning_trt_windows.network import UnknownLayerError

__all__ = ["OUTCOMES", "RIGHT", "outcomes"]

OUTCOMES = (
    "engine", "pytorch", "fixed", "refused", "random", "capture", "open", "wrong", "exception", "time", "unevaluated"
)  # fmt: skip
"""Right in an engine, right with an operator in PyTorch, right at the one size that the operator's other arguments or
its own code leave (which the export notes, and makes the dimension static), refused by this package, random, captured
by PyTorch as something else at this size, left open by TensorRT (where NaN stands in an order), wrong, an exception of
another class than this package's, over the time limit, a layer that the evaluator does not know."""
RIGHT = ("engine", "pytorch", "fixed")


class _TookTooLong(BaseException):
    """Of a class that nothing on the way catches."""


class _RandomError(Exception):
    """The module draws random numbers: that operator stays in PyTorch, and there is nothing to compare."""


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcomes(samples: list[Sample], mode: str, *, limit: int = 60) -> list[dict[str, Any]]:
    """What came of each sample; ``mode`` is static, first or last: which axis of the first tensor varies.

    All samples are compiled as one module, which takes a fraction of the time, and one by one where that fails.
    """
    if mode != "static":
        samples = [sample for sample in samples if _varying(sample, mode)]
    if not samples:
        return []
    if len(samples) > 1:
        together = _attempt(samples, mode, limit)
        # that one operator is in PyTorch counts for all samples of it
        if all(record["outcome"] in (*RIGHT, "random") for record in together):
            return together
    records = []
    for sample in samples:
        records += _attempt([sample], mode, limit)
    return records


def _varying(sample: Sample, mode: str) -> list[dict[int, int]] | None:
    """For each tensor the axis that varies, and its size; ``None`` where none does."""
    axis_of = (lambda t: 0) if mode == "first" else (lambda t: t.dim() - 1)
    least = 1 if mode == "first" else 2
    size: int | None = None
    marks: list[dict[int, int]] = []
    for tensor in sample.tensors:
        n = tensor.shape[axis_of(tensor)] if tensor.dim() >= least else 0
        if size is None and n >= 2:
            size = n
        marks.append({axis_of(tensor): n} if n >= 2 and n == size else {})
    return marks if size is not None else None


class _Together(nn.Module):
    """The samples of an operator as one module of all their tensors, and an engine whatever they do."""

    def __init__(self, samples: list[Sample]) -> None:
        super().__init__()
        self.samples = samples
        for number, sample in enumerate(samples):
            if sample.module is not None:
                self.add_module(f"module{number}", sample.module)

    def forward(self, first: Tensor, *tensors: Tensor) -> Any:
        results, start = [first * 2.0 + 1.0], 0
        for sample in self.samples:
            results += tensors_of(sample.function(*tensors[start : start + len(sample.tensors)]))
            start += len(sample.tensors)
        return tuple(results)


def _attempt(samples: list[Sample], mode: str, limit: int) -> list[dict[str, Any]]:
    try:
        with _limited(limit):
            return _compared(samples, mode)
    except _TookTooLong:
        problem, outcome = f"took longer than {limit} s", "time"
    except LightningTrtError as error:
        problem, outcome = str(error), "refused"
    except _RandomError as error:
        problem, outcome = str(error), "random"
    # whatever class it is of is what the run is to find
    except Exception as error:
        problem, outcome = f"{type(error).__name__}: {error}", "exception"
    return [{"label": s.label, "outcome": outcome, "reason": _short(problem)} for s in samples]


def _short(text: str) -> str:
    return " ".join(text.split())[:400]


def _compared(samples: list[Sample], mode: str) -> list[dict[str, Any]]:
    module = _Together(samples).eval()
    tensors = [tensor for sample in samples for tensor in sample.tensors]
    marks: list[dict[int, int]] = []
    for sample in samples:
        marks += (_varying(sample, mode) if mode != "static" else None) or [{} for _ in sample.tensors]
    ranges = [
        {axis: DimRange(1, n, 2 * n, f"size{number}") for axis, n in mark.items()}
        for number, sample in enumerate(samples)
        for mark in marks[sum(len(s.tensors) for s in samples[:number]) :][: len(sample.tensors)]
    ]
    first = torch.tensor([1.0, 2.0, 3.0])
    program, ranges = _captured(module, first, tensors, ranges)
    for node in program.graph.nodes:
        if draws_random_numbers(node):
            raise _RandomError(f"{node.target} draws random numbers")
    evaluated = compile_evaluated(program)
    fallback = list(evaluated.compiled.fallback_ops)
    records = [
        {"label": s.label, "outcome": "pytorch" if fallback else "engine", "fallback": fallback} for s in samples
    ]
    start = 0
    for record, sample in zip(records, samples):
        own = slice(start, start := start + len(sample.tensors))
        if any(marks[own]) and not any(ranges[own]):
            record |= {"outcome": "fixed", "in": record["outcome"]}
    problems: dict[int, str] = {}
    for which in ("opt", "next", "min") if any(ranges) else ("opt",):
        given = [_resized(t, ranges_of, which) for t, ranges_of in zip(tensors, ranges)]
        before = len(problems)
        _compare_at(evaluated, samples, first, given, problems)
        if len(problems) > before and _captured_differs(
            lambda: _captured(module, first, tensors, ranges)[0], samples, first, given
        ):
            if len(samples) > 1:
                raise RuntimeError("PyTorch captures one of them as something else")
            return [records[0] | {"outcome": "capture", "reason": f"at {[tuple(t.shape) for t in given]}"}]
    for number, problem in problems.items():
        if _order_of_nan(evaluated, samples, first, tensors, number):
            records[number] |= {"outcome": "open", "reason": _short(f"where NaN stands in an order: {problem}")}
            continue
        unknown = problem.startswith(UnknownLayerError.__name__)
        records[number] |= {"outcome": "unevaluated" if unknown else "wrong", "reason": _short(problem)}
    return records


_ORDERING = {"argmax", "argmin", "topk", "sort", "kthvalue", "median", "max", "min", "msort", "argsort"}


def _order_of_nan(
    evaluated: Evaluated, samples: list[Sample], first: Tensor, tensors: list[Tensor], number: int
) -> bool:
    """Whether a sample is right without the NaN among its numbers, and engines put them into an order."""
    nodes = (
        node for graph in evaluated.partitions.values() for node in graph.graph.nodes if node.op == "call_function"
    )
    if not _ORDERING & {str(node.target).split(".")[1] for node in nodes if "." in str(node.target)}:
        return False
    start = sum(len(sample.tensors) for sample in samples[:number])
    own = tensors[start : start + len(samples[number].tensors)]
    if not any(bool(t.isnan().any()) for t in own if t.is_floating_point()):
        return False
    problems: dict[int, str] = {}
    given = [t.nan_to_num(0.25) if t.is_floating_point() else t for t in tensors]
    _compare_at(evaluated, samples, first, given, problems)
    return number not in problems


def _captured_differs(
    program: Callable[[], ExportedProgram], samples: list[Sample], first: Tensor, given: list[Tensor]
) -> bool:
    """Whether the captured program itself gives something else than eager: PyTorch takes sizes for 2 and more."""
    module = _Together(samples)
    try:
        with torch.no_grad():
            wanted = tensors_of(module(first, *(t.clone() for t in given)))
            results = tensors_of(run_with(program(), {}, (first, *(t.clone() for t in given)), {}))
    except Exception:
        return True
    return any(difference(a, b) for a, b in zip(results, wanted))


def _captured(
    module: nn.Module, first: Tensor, tensors: Sequence[Tensor], ranges: Sequence[dict[int, DimRange]]
) -> tuple[ExportedProgram, list[dict[int, DimRange]]]:
    """The program, and for each tensor the axes that vary in it: narrowed to what the module takes, as exports do it.

    Raises:
        CaptureError: It cannot be captured.
    """
    ranges = list(ranges)
    for _ in range(2 * len(tensors) + 2):
        specs = [_spec(tensor, of) for tensor, of in zip(tensors, ranges)]
        try:
            return capture(module, {"first": _spec(first, {}), "tensors": specs}).program, ranges
        except DimensionError as error:
            before = list(ranges)
            known = {dim.name: dim for of in ranges for dim in of.values()}
            for suggestion in error.suggestions:
                other = known.get(suggestion.same_as) if suggestion.same_as else None
                if suggestion.same_as and other is None:
                    continue
                changed = {
                    dim: other or suggestion.applied_to(dim) for dim in known.values() if dim.name == suggestion.symbol
                }
                ranges = [
                    {axis: new for axis, dim in of.items() if isinstance(new := changed.get(dim, dim), DimRange)}
                    for of in ranges
                ]
                # the size that is left must be the sample's own, whose other arguments were made for it
                for tensor, was, of in zip(tensors, before, ranges):
                    for axis, dim in was.items():
                        if axis not in of and changed.get(dim) != tensor.shape[axis]:
                            raise CaptureError(f"only the size {changed.get(dim)} is left: {error}") from error
            if ranges == before:
                raise
    raise CaptureError("it cannot be captured with any of its sizes")


def _spec(tensor: Tensor, ranges: dict[int, DimRange]) -> InputSpec:
    finite = tensor.double()[tensor.isfinite()] if tensor.dtype is not torch.bool else tensor.double()
    return InputSpec(
        shape=tuple(ranges.get(axis, size) for axis, size in enumerate(tensor.shape)),
        dtype=str(tensor.dtype).removeprefix("torch."),
        values=(float(finite.min()), float(finite.max())) if finite.numel() else None,
    )


def _resized(tensor: Tensor, ranges: dict[int, DimRange], which: str) -> Tensor:
    """``tensor`` with its varying axes of the usual size, of the next larger one, or of the smallest."""
    for axis, dim in ranges.items():
        n = tensor.shape[axis]
        size = {"opt": n, "next": min(n + dim.multiple_of, dim.max), "min": dim.min}[which]
        tensor = tensor.index_select(axis, torch.arange(size) % n)
    return tensor


def _compare_at(
    evaluated: Evaluated, samples: list[Sample], first: Tensor, given: list[Tensor], problems: dict[int, str]
) -> None:
    wanted: list[list[Tensor] | None] = []
    start = 0
    for sample in samples:
        part = given[start : start + len(sample.tensors)]
        start += len(sample.tensors)
        try:
            with torch.no_grad():
                wanted.append([t.clone() for t in tensors_of(sample.function(*(t.clone() for t in part)))])
        # eager refuses this size
        except Exception:
            wanted.append(None)
    if any(want is None for want in wanted):
        if len(samples) > 1:
            raise RuntimeError("eager refuses a size that others take")
        return
    try:
        results = tensors_of(evaluated(first, *(t.clone() for t in given)))
    except Exception as error:
        if len(samples) > 1:
            raise
        if _refused_in_float32(samples[0], given):
            return
        problems[0] = f"{type(error).__name__}: {error}"
        return
    position = 1
    for number, want in enumerate(wanted):
        assert want is not None
        got = results[position : position + len(want)]
        position += len(want)
        part = given[sum(len(s.tensors) for s in samples[:number]) :][: len(samples[number].tensors)]
        for place, (a, b) in enumerate(zip(got, want)):
            problem = difference(a, b)
            if not problem or number in problems:
                continue
            ordered = place == 1 and not b.is_floating_point() and not difference(got[0], want[0])
            if ordered and got[0].shape == b.shape:
                continue  # of equal values any may come first, and eager leaves open which
            if b.dtype in _WIDER and not _worse_than_eager(samples[number], part, place, a):
                continue
            problems[number] = f"{problem} at {[tuple(t.shape) for t in part]}"


_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float64}


def _refused_in_float32(sample: Sample, tensors: list[Tensor]) -> bool:
    """Whether eager refuses sizes in float32 that it lets pass in a half type, as a convolution that leaves nothing."""
    halves = (torch.float16, torch.bfloat16)
    if not any(t.dtype in halves for t in tensors):
        return False
    try:
        with torch.no_grad(), _in_type(sample, torch.float32):
            sample.function(*(t.float() if t.dtype in halves else t.clone() for t in tensors))
    except RuntimeError:
        return True
    return False


@contextlib.contextmanager
def _in_type(sample: Sample, dtype: torch.dtype) -> Iterator[None]:
    """The weights of a module in a wider type, and as they were afterwards."""
    narrow = {t.dtype for t in sample.module.parameters()} if sample.module is not None else set()
    if sample.module is None or len(narrow) != 1:
        yield
        return
    sample.module.to(dtype)
    try:
        yield
    finally:
        sample.module.to(narrow.pop())


def _worse_than_eager(sample: Sample, tensors: list[Tensor], place: int, got: Tensor) -> bool:
    """Whether ``got`` is farther from the result in a wider type than its precision allows.

    Eager rounds after each operator on a CPU, where an engine, or a GPU, need not; and what is left of two numbers that
    cancel is rounding in both.
    """
    half = got.dtype in (torch.float16, torch.bfloat16)
    types = {dtype: wider for dtype, wider in _WIDER.items() if not half or dtype is not torch.float32}
    try:
        with torch.no_grad(), _in_type(sample, torch.float32 if half else torch.float64):
            wide = tensors_of(sample.function(*(t.to(types.get(t.dtype, t.dtype), copy=True) for t in tensors)))
        exact = wide[place].to(got.dtype)
    # weights of a module in the low type, an operator that takes this type only
    except Exception:
        return True
    return bool(difference(got, exact))


_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def difference(got: Tensor, want: Tensor) -> str:
    """In words, what ``got`` differs in; empty where it is right. NaN and infinities stand where they stand."""
    if got.shape != want.shape:
        return f"shape {tuple(got.shape)}, wanted {tuple(want.shape)}"
    if got.dtype != want.dtype:
        return f"type {got.dtype}, wanted {want.dtype}"
    if want.is_complex():
        got, want = torch.view_as_real(got.resolve_conj()), torch.view_as_real(want.resolve_conj())
    if not want.is_floating_point():
        wrong = int((got != want).sum())
        return f"{wrong} of {want.numel()} integers differ: {_first(got, want, got != want)}" if wrong else ""
    tolerance = _TOLERANCE.get(want.dtype, 1e-3)
    got, want = got.double(), want.double()
    strange = (got.isfinite() != want.isfinite()) | (got.isnan() != want.isnan())
    strange |= got.isinf() & want.isinf() & (got != want)
    if strange.any():
        return f"{int(strange.sum())} of {want.numel()} not finite as in eager: {_first(got, want, strange)}"
    finite = want.isfinite()
    got, want = got[finite], want[finite]
    error = (got - want).abs()
    scale = max(float(want.abs().max()), 1e-6) if want.numel() else 1.0
    far = error > tolerance * want.abs() + tolerance * 1e-1 * scale
    return f"error {float(error.max() / scale):.1e}: {_first(got, want, far)}" if far.any() else ""


def _first(got: Tensor, want: Tensor, where: Tensor) -> str:
    place = int(where.flatten().int().argmax())
    return f"{got.flatten()[place].item():.6g}, wanted {want.flatten()[place].item():.6g}"
