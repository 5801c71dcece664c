"""Evaluate the steps of a network in order, with loops and conditionals, and let values go as they are used up."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_trt_windows.network import (
    elementwise,
    indexing,
    products,
    quantization,
    reductions,
    resize,
    shapes,
    windows,
)
from lightning_trt_windows.network.call import LAYERS, Call, torch_dtypes
from lightning_trt_windows.network.errors import BudgetExceededError, NetworkError, UnknownLayerError
from lightning_trt_windows.network.recording import Repeated

__all__ = ["Evaluation", "Evaluator", "Step"]

# importing them registers their layers
_ = (elementwise, indexing, products, quantization, reductions, resize, shapes, windows)

_MOST_WARNINGS = 50
_MOST_ITERATIONS = 1 << 20


@dataclass(frozen=True, eq=False)
class Step:
    """A layer of a network."""

    layer: Any
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    owner: str
    """Name of the loop, the conditional or the attention that it belongs to."""
    known: bool
    """Whether the bindings have a class for it."""


@dataclass(frozen=True)
class Evaluation:
    """What evaluating gave."""

    values: dict[str, Tensor]
    warnings: tuple[str, ...]
    """Sentences about calls that TensorRT's documentation leaves open, each once."""


class Evaluator:
    """Evaluates the steps of one network once.

    Args:
        trt: TensorRT's bindings.
        steps: The layers.
        inputs: Input bindings with their types.
        weights: Constants that the bindings cannot return.
        seconds: How long it may take.
        memory: Bytes that values may take at any moment.
    """

    def __init__(
        self,
        trt: Any,
        steps: Sequence[Step],
        inputs: Mapping[str, Any],
        weights: Mapping[str, Any],
        *,
        seconds: float | None,
        memory: int | None,
    ) -> None:
        self._trt = trt
        self._inputs = inputs
        self._weights = weights
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._memory = memory
        self._bytes = 0
        self._warnings: dict[str, None] = {}
        self._dtypes = torch_dtypes(trt)
        self._producer = {name: step for step in steps for name in step.outputs if name}
        self._members: dict[tuple[str, str], list[Step]] = {}
        self._loops: dict[str, list[str]] = {}
        for step in steps:
            if step.owner:
                self._members.setdefault((_family(step.kind), step.owner), []).append(step)

    def evaluate(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Evaluation:
        """Compute ``outputs``.

        Returns:
            The values by name, and what was noted meanwhile.

        Raises:
            NetworkError: An input has no value, or the network does what TensorRT does not allow.
        """
        values: dict[str, Tensor] = {}
        for name, dtype in self._inputs.items():
            if name not in inputs:
                raise NetworkError(f"there is no value for the input {name!r}")
            value = inputs[name]
            wanted = self._dtypes.get(dtype)
            if wanted is not None and value.dtype != wanted:
                self._warn(f"the binding {name!r} takes {wanted}, it was given {value.dtype}")
                value = value.to(wanted)
            values[name] = value
        values.update((name, value) for name, value in inputs.items() if name in self._producer)
        with torch.no_grad():
            self._run(outputs, values, frozenset(outputs) | frozenset(self._inputs) | frozenset(inputs))
        return Evaluation({name: values[name] for name in outputs}, tuple(self._warnings))

    def _run(self, targets: Iterable[str], values: dict[str, Tensor], kept: frozenset[str]) -> None:
        """Compute ``targets`` into ``values``; what is not ``kept`` goes when nothing needs it any more."""
        order = self._order(targets, values)
        uses = Counter(name for step in order for name in self._needs(step))
        for step in order:
            if time.monotonic() > self._deadline:
                raise BudgetExceededError("evaluating the network takes longer than it may")
            if step.kind == "LOOP_OUTPUT" and step.outputs[0] in values:
                results: Iterable[tuple[str, Tensor]] = ()  # another output of the loop has run it
            else:
                results = self._results(step, values)
            for name, result in results:
                values[name] = result
                self._bytes += result.numel() * result.element_size()
            if self._memory is not None and self._bytes > self._memory:
                raise BudgetExceededError(f"the values of the network take more than {self._memory} bytes")
            for name in self._needs(step):
                uses[name] -= 1
                if not uses[name] and name not in kept and name in self._producer:
                    gone = values.pop(name, None)
                    self._bytes -= 0 if gone is None else gone.numel() * gone.element_size()

    def _order(self, targets: Iterable[str], values: Mapping[str, Tensor]) -> list[Step]:
        """The steps that ``targets`` need and that have not run, each after those that it needs."""
        order: list[Step] = []
        done: set[Step] = set()
        stack: list[tuple[str, bool]] = [(name, False) for name in reversed(list(targets))]
        while stack:
            name, ready = stack.pop()
            if name in values:
                continue
            step = self._producer.get(name)
            if step is None:
                raise NetworkError(f"no layer gives the tensor {name!r}")
            if step in done:
                continue
            if ready:
                done.add(step)
                order.append(step)
                continue
            stack.append((name, True))
            stack.extend((needed, False) for needed in self._needs(step) if needed not in values)
        return order

    def _needs(self, step: Step) -> Sequence[str]:
        """Tensors that must be there before ``step`` runs."""
        if step.kind == "LOOP_OUTPUT":
            return self._loop_needs(step)
        if step.kind == "CONDITIONAL_OUTPUT":  # of the branches only the one that is taken
            condition = self._of(step, "CONDITION")[0]
            return condition.inputs
        if step.kind == "ATTENTION_OUTPUT":
            own = step.layer.attention
            mask = () if own.mask is None else (own.mask.name,)
            return (*(own.get_input(index).name for index in range(3)), *mask)
        return step.inputs

    def _of(self, step: Step, kind: str) -> list[Step]:
        """Steps of a kind that belong to the same loop or conditional as ``step``."""
        return [member for member in self._members[_family(step.kind), step.owner] if member.kind == kind]

    def _results(self, step: Step, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        if step.kind == "LOOP_OUTPUT":
            yield from self._loop(step, values)
            return
        if step.kind == "CONDITIONAL_OUTPUT":
            taken = step.inputs[0 if bool(values[self._needs(step)[0]].reshape(-1)[0]) else 1]
            inner = dict(values)
            self._run([taken], inner, frozenset(values) | {taken})
            yield step.outputs[0], inner[taken]
            return
        if step.kind == "CONDITIONAL_INPUT":
            yield step.outputs[0], values[step.inputs[0]]
            return
        function = LAYERS.get(step.kind)
        if function is None or not step.known:
            raise UnknownLayerError(step.kind, step.layer.name)
        call = Call(self._trt, step.layer, step.kind, values.__getitem__, self._weights, self._warn)
        try:
            results = function(call)
        except (RuntimeError, IndexError, ValueError) as error:  # PyTorch does not take what TensorRT would not either
            raise NetworkError(f"{step.layer.name} ({step.kind}): {error}") from error
        for number, (name, result) in enumerate(zip(step.outputs, results)):
            if name:
                yield name, self._as_declared(step, number, result)

    def _as_declared(self, step: Step, number: int, result: Tensor) -> Tensor:
        """The result in the type that the network says; what it says of the shape is compared."""
        tensor = step.layer.get_output(number)
        wanted = self._dtypes.get(tensor.dtype)
        if wanted is not None and result.dtype != wanted:
            self._warn(f"{step.layer.name}: the network says {wanted}, computed was {result.dtype}")
            result = result.to(wanted)
        try:
            shape = tuple(tensor.shape)
        except ValueError:  # the network does not know the rank
            return result
        if len(shape) != result.dim() or any(size >= 0 and size != own for size, own in zip(shape, result.shape)):
            self._warn(f"{step.layer.name}: the network says {shape}, computed was {tuple(result.shape)}")
        return result

    # loops

    def _loop_needs(self, step: Step) -> list[str]:
        """What a loop takes from outside: length, initial values, what it iterates over, constants of its body."""
        if step.owner not in self._loops:
            self._loops[step.owner] = self._loop_needs_anew(step)
        return self._loops[step.owner]

    def _loop_needs_anew(self, step: Step) -> list[str]:
        counted = (trip for trip in self._of(step, "TRIP_LIMIT") if trip.layer.kind.name == "COUNT")
        outside = [name for trip in counted for name in trip.inputs]
        outside += [member.inputs[0] for member in (*self._of(step, "RECURRENCE"), *self._of(step, "ITERATOR"))]
        outside += [name for output in self._of(step, "LOOP_OUTPUT") for name in output.inputs[1:]]
        inside = self._inside(step)
        body = {name for member in inside for name in self._needs(member)} | set(self._body_targets(step))
        made = {name for member in inside for name in member.outputs} | self._sources(step)
        return list(dict.fromkeys([*outside, *sorted(body - made)]))

    def _sources(self, step: Step) -> set[str]:
        """What changes from iteration to iteration by itself."""
        members = (*self._of(step, "RECURRENCE"), *self._of(step, "ITERATOR"))
        return {name for member in members for name in member.outputs}

    def _inside(self, step: Step) -> list[Step]:
        """Steps of a loop's body: those that depend on a recurrence or an iterator, back from what the loop gives."""
        sources = self._sources(step)
        memo: dict[str, bool] = {}

        def varies(name: str) -> bool:
            stack = [(name, False)]
            while stack:
                current, ready = stack.pop()
                if current in memo:
                    continue
                if current in sources:
                    memo[current] = True
                    continue
                producer = self._producer.get(current)
                # what another loop changes is that of one around this, and stays while this one runs
                if producer is None or producer.kind in ("RECURRENCE", "ITERATOR"):
                    memo[current] = False
                    continue
                needs = self._needs(producer)
                if ready:
                    memo[current] = any(memo.get(needed, False) for needed in needs)
                    continue
                stack.append((current, True))
                stack.extend((needed, False) for needed in needs if needed not in memo)
            return memo[name]

        body: list[Step] = []
        seen: set[Step] = set()
        pending = self._body_targets(step)
        while pending:
            name = pending.pop()
            producer = self._producer.get(name)
            if producer is None or producer in seen or name in sources or not varies(name):
                continue
            seen.add(producer)
            body.append(producer)
            pending.extend(self._needs(producer))
        return body

    def _body_targets(self, step: Step) -> list[str]:
        """Tensors that every iteration computes."""
        following = [member.inputs[1] for member in self._of(step, "RECURRENCE")]
        given = [member.inputs[0] for member in self._of(step, "LOOP_OUTPUT")]
        going_on = [trip.inputs[0] for trip in self._of(step, "TRIP_LIMIT") if trip.layer.kind.name == "WHILE"]
        return [*following, *given, *going_on]

    def _loop(self, step: Step, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Run a loop to its end; gives all that it gives, so that it runs once."""
        recurrences, iterators = self._of(step, "RECURRENCE"), self._of(step, "ITERATOR")
        outputs, (trip,) = self._of(step, "LOOP_OUTPUT"), self._of(step, "TRIP_LIMIT")
        counted = trip.layer.kind.name == "COUNT"
        count = int(values[trip.inputs[0]].reshape(-1)[0]) if counted else _MOST_ITERATIONS
        state = {member.outputs[0]: values[member.inputs[0]] for member in recurrences}
        collected: dict[str, list[Tensor]] = {output.outputs[0]: [] for output in outputs}
        targets = self._body_targets(step)
        body = Repeated(lambda changing: self._iteration(targets, values, changing))
        for iteration in range(count):
            if time.monotonic() > self._deadline:
                raise BudgetExceededError("evaluating the network takes longer than it may")
            changing = {**state, **dict(_slices(iterators, values, iteration))}
            inner = {**changing, **body(changing)}
            if not counted and not bool(inner[trip.inputs[0]].reshape(-1)[0]):
                break
            for output in outputs:
                if output.layer.kind.name != "LAST_VALUE":
                    collected[output.outputs[0]].append(inner[output.inputs[0]])
            state = {member.outputs[0]: self._next(member, state, inner) for member in recurrences}
        for output in outputs:
            kind, name = output.layer.kind.name, output.outputs[0]
            if kind == "LAST_VALUE":
                yield name, state[output.inputs[0]]
                continue
            parts = collected[name][::-1] if kind == "REVERSE" else collected[name]
            if len(output.inputs) > 1 and int(values[output.inputs[1]].reshape(-1)[0]) != len(parts):
                self._warn(f"{output.layer.name}: it ran {len(parts)} times, which is not the length that it was given")
            if not parts:
                raise NetworkError(f"{output.layer.name}: a loop that never runs gives nothing to concatenate")
            yield name, torch.stack(parts, output.layer.axis)

    def _iteration(
        self, targets: Sequence[str], values: Mapping[str, Tensor], changing: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The ``targets`` after one iteration, layer by layer."""
        inner = {**values, **changing}
        held = self._bytes
        self._run(targets, inner, frozenset(inner) | frozenset(targets))
        self._bytes = held  # what an iteration computed goes with it
        return {name: inner[name] for name in targets}

    def _next(self, member: Step, state: Mapping[str, Tensor], inner: Mapping[str, Tensor]) -> Tensor:
        before, after = state[member.outputs[0]], inner[member.inputs[1]]
        if before.shape != after.shape or before.dtype != after.dtype:
            self._warn(
                f"{member.layer.name}: {before.dtype} {tuple(before.shape)} becomes {after.dtype} {tuple(after.shape)}"
            )
        return after

    def _warn(self, text: str) -> None:
        if len(self._warnings) < _MOST_WARNINGS:
            self._warnings[text] = None


def _slices(iterators: Iterable[Step], values: Mapping[str, Tensor], iteration: int) -> Iterator[tuple[str, Tensor]]:
    for member in iterators:
        source, axis = values[member.inputs[0]], member.layer.axis
        index = source.shape[axis] - 1 - iteration if member.layer.reverse else iteration
        yield member.outputs[0], source.select(axis, index)


def _family(kind: str) -> str:
    """Loops, conditionals and attentions name their members apart from each other."""
    if kind in ("LOOP_OUTPUT", "RECURRENCE", "ITERATOR", "TRIP_LIMIT"):
        return "loop"
    return "conditional" if kind.startswith("CONDITION") else "attention"
