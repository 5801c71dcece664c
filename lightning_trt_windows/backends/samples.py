"""Inputs at which a program is checked, and what the captured program gives for them.

The captured program runs before anything is lowered, so that faults of decompositions show as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.fx import GraphModule, Interpreter, Node

from lightning_trt_windows._compat.precision import exact_float32
from lightning_trt_windows.modules.numbers import relative_norm

__all__ = ["GraphRun", "Sample", "Samples", "arguments_of", "draws_random_numbers", "elements_of"]

_ROUNDING = 1e-2
"""Relative difference that threads may make which add up in another order."""
_LONGEST = 20.0
"""Seconds that the first run may be expected to take, from which on a size is left out, without a budget as well."""


@dataclass
class Sample:
    """One set of inputs."""

    name: str
    """``min``, ``opt``, ``max`` or ``between``."""
    sizes: Mapping[str, int]
    """Size of each named dimension."""
    variants: Sequence[Callable[[], list[Tensor]]]
    """Ways to fill the inputs, tried in this order until the program takes them."""
    elements: int
    """Elements of all inputs together."""
    inputs: list[Tensor] = field(default_factory=list)
    wanted: list[Any] = field(default_factory=list)
    """What the captured program gives."""


@dataclass
class Samples:
    """The sets of inputs of a program, and a budget for what is computed with them.

    Args:
        mode: What the user asked for.
        candidates: Sets of inputs, any number.
        seconds: How long checking may take in all; ``None`` is no limit.
        memory: Bytes that may be kept between the steps of the check.
    """

    mode: Literal["auto", "full"]
    candidates: Sequence[Sample]
    seconds: float | None
    memory: int
    used: list[Sample] = field(default_factory=list)
    """Samples that the captured program has run."""
    not_checked: list[str] = field(default_factory=list)
    """Sentences: what was left out, and why."""

    def run(self, program: ExportedProgram) -> None:
        """Run the captured ``program``, on the smallest inputs first, and keep what it gives."""
        may_draw, may_read = draws_random_numbers(program.graph_module), _leaves_memory_as_it_is(program.graph_module)
        speed, spent = 0.0, 0.0
        for sample in sorted(self.candidates, key=lambda sample: sample.elements):
            # the lowered graph and the network are run as well
            expected = 3 * speed * sample.elements
            limit = _LONGEST if self.seconds is None else self.seconds - spent
            if self.used and expected > limit:
                self.not_checked.append(f"the sizes {sample.name} would take about {expected:.0f} s")
                continue
            started = time.perf_counter()
            if reason := _run_first_that_fits(program, sample):
                self.not_checked.append(f"the sizes {sample.name}: {reason}")
                continue
            took = time.perf_counter() - started
            if may_draw and not self.used and not _repeats(program, sample):
                self.not_checked.append(f"the program draws random numbers ({may_draw})")
                return
            if may_read and not self.used and not _repeats_in_filled_memory(program, sample):
                self.not_checked.append(f"the program gives what was in memory that it did not fill ({may_read})")
                return
            if not self.used and (self.seconds is None or 2 * took < self.seconds):
                # the first run has caches to fill and code to load, which says nothing about larger inputs
                started = time.perf_counter()
                again = _run(program, sample.inputs)
                if not _same(again, sample.wanted, _ROUNDING):
                    self.not_checked.append("the program gives something else each time it runs on the same inputs")
                    return
                spent, took = spent + took, min(took, time.perf_counter() - started)
            speed, spent = took / max(sample.elements, 1), spent + 3 * took
            self.used.append(sample)


def draws_random_numbers(graph: GraphModule) -> str:
    """Name of the first operator in ``graph`` that may draw random numbers (attention does with dropout only).

    Empty where there is none.
    """
    for node in graph.graph.nodes:
        if node.op == "call_function" and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return str(node.target)
    return ""


_UNFILLED = ("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::empty_permuted", "aten::new_empty")
"""Beginnings of operators whose results are what the memory held before."""


def _leaves_memory_as_it_is(graph: GraphModule) -> str:
    """Name of the first operator in ``graph`` that makes a tensor without values; empty where there is none."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and str(getattr(node.target, "_schema", "")).startswith(_UNFILLED):
            return str(node.target)
    return ""


def _repeats_in_filled_memory(program: ExportedProgram, sample: Sample) -> bool:
    """Whether a second run gives the same where memory that the program does not fill is full of NaN."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        # deterministic kernels may add in another order, which is no reason to check nothing
        return _same(_run(program, sample.inputs), sample.wanted, _ROUNDING)
    # operators that do not take NaN
    except Exception:
        return False
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _repeats(program: ExportedProgram, sample: Sample) -> bool:
    """Whether a second run, with other random numbers, gives the same."""
    torch.manual_seed(time.time_ns() % (1 << 31))
    return _same(_run(program, sample.inputs), sample.wanted)


def _same(again: Sequence[Any], before: Sequence[Any], rounding: float = 1e-5) -> bool:
    tensors = ((a, b) for a, b in zip(again, before) if isinstance(b, Tensor))
    return all(
        relative_norm(a, b) <= rounding if b.is_floating_point() or b.is_complex() else torch.equal(a, b)
        for a, b in tensors
    )


def _run_first_that_fits(program: ExportedProgram, sample: Sample) -> str:
    """Run the program on variants until all that it gives is finite, or else keep any that it takes.

    Returns:
        Why it takes none; empty where there is one.
    """
    reason, ran = "", False
    for make in sample.variants:
        inputs = make()
        try:
            wanted = _run(program, inputs)
        except Exception as error:  # indices beyond what they index, an operator that CPUs lack
            reason = reason or f"the program does not run on synthetic inputs: {_first_line(error)}"
            continue
        finite = all(bool(value.isfinite().all()) for value in wanted if isinstance(value, Tensor))
        if finite or not ran:
            sample.inputs, sample.wanted, ran = inputs, wanted, True
        if finite:
            break
    return "" if ran else reason or "there are no inputs to run it on"


def _run(program: ExportedProgram, inputs: Sequence[Tensor]) -> list[Any]:
    with torch.no_grad(), exact_float32():
        results = GraphRun(program.graph_module).run(*arguments_of(program, inputs), enable_io_processing=False)
    first = len(program.graph_signature.output_specs) - len(program.graph_signature.user_outputs)
    return list(results[first:])


def arguments_of(program: ExportedProgram, inputs: Sequence[Tensor]) -> list[Any]:
    """What the graph of ``program`` takes: its state, and copies of ``inputs`` among what was fixed at the capture."""
    given = iter(inputs)
    arguments: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            constant = isinstance(spec.arg, ConstantArgument)
            arguments.append(spec.arg.value if constant else next(given).clone())
            continue
        held = program.state_dict.get(spec.target) if spec.kind is not InputKind.CONSTANT_TENSOR else None
        held = program.constants.get(spec.target) if held is None else held
        arguments.append(held.clone() if isinstance(held, Tensor) and spec.kind is not InputKind.PARAMETER else held)
    return arguments


class GraphRun(Interpreter):
    """Runs a graph on the CPU; what CPUs do not have in float16 is computed in float32 and rounded.

    Args:
        module: The graph.
        seen: Called with each node and what it gave.
    """

    def __init__(self, module: GraphModule, seen: Callable[[Node, Any], None] | None = None) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._seen = seen

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if self._seen is not None:
            self._seen(n, result)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call an operator, in float32 where it is slow or missing in the half types."""
        name = str(getattr(target, "_schema", None) and target._schema.name)
        if name in _WIDE:
            wide = torch.utils._pytree.tree_map(_widened, (args, kwargs))
            if wide is not None and (dtype := _half_of((args, kwargs))) is not None:
                result = super().call_function(target, *wide)
                return torch.utils._pytree.tree_map(
                    lambda value: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value,
                    result,
                )
        return super().call_function(target, args, kwargs)


_WIDE = frozenset(
    f"aten::{name}"
    for name in (
        *(
            "mm",
            "bmm",
            "addmm",
            "baddbmm",
            "linear",
            "matmul",
            "mv",
            "dot",
            "convolution",
            "conv1d",
            "conv2d",
            "conv3d",
        ),
        *("scaled_dot_product_attention", "native_layer_norm", "native_group_norm", "einsum", "_softmax", "softmax"),
        *("lstm", "gru", "rnn_tanh", "rnn_relu"),
    )
)
"""Operators that CPUs lack in float16, or take long for."""


def _half_of(tree: Any) -> torch.dtype | None:
    leaves = torch.utils._pytree.tree_leaves(tree)
    halves = {leaf.dtype for leaf in leaves if isinstance(leaf, Tensor)} & {torch.float16, torch.bfloat16}
    return halves.pop() if len(halves) == 1 else None


def _widened(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def elements_of(shapes: Sequence[Sequence[int]]) -> int:
    """Elements of all tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
