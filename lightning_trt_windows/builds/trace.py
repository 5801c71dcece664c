"""A captured program that serves several checkpoints, and whether it still is what the module computes.

Where the notes of an execution say all, equal notes are the proof. Where they do not, the program, which is kept in
memory as a bare graph, runs on the same inputs with the weights that the module holds at the moment, and has to give
the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from lightning_trt_windows.builds.execution import Execution, guarded, seeded, weights_of
from lightning_trt_windows.export.job import Job

__all__ = ["BareProgram", "Trace", "difference"]

_ROUNDING = 64.0
"""Units in the last place, of the norm of an output, that a program may be off at most to count as the same function:
what deep networks accumulate where other kernels add in another order."""
_ROUNDING_OF_HALVES = 4.0
"""The same for types of 16 bits, in which additions are wider than results."""
_MARGIN = 8.0
"""How many times the difference that was there at capture: roundings vary with the weights."""


@dataclass
class Trace:
    """A captured program that serves several checkpoints."""

    job: Job
    """The build, with its program in a file."""
    inputs: Mapping[str, Any]
    """The inputs as they were discovered."""
    keys: Mapping[str, str]
    """Names of tensors in the checkpoint, as in ``SavedProgram``."""
    program: BareProgram | None
    """The program in memory; ``None`` where notes say all."""
    allowed: float = 0.0
    """How far the program's outputs may be from the module's, see ``difference``: nothing, where they were equal bit by
    bit when it was captured."""
    executions: set[str] = field(default_factory=set)
    """Keys of executions whose program this is."""

    def serves(self, module: nn.Module, execution: Execution) -> bool:
        """Whether this is the program of what ``module`` has just computed."""
        if execution.key not in self.executions:
            return False
        if execution.is_whole:
            return True
        return self.program is not None and self.program.difference(module, execution) <= self.allowed

    def is_of_the_same(self, other: Trace) -> bool:
        """Whether both have the same program, constants, ranges and settings."""
        same = bool(self.job.fingerprint) and self.job.fingerprint == other.job.fingerprint
        return same and self.keys == other.keys

    def begin(self, module: nn.Module, execution: Execution) -> bool:
        """Take ``execution``, at which the program was captured, for what it computes.

        Returns:
            Whether it may serve later checkpoints: the notes say all, or module and program are the same function, to
            within rounding.
        """
        self.executions.add(execution.key)
        if execution.is_whole:
            return True
        found = float("inf") if self.program is None else self.program.difference(module, execution)
        self.allowed = min(_MARGIN * found, 1.0)
        return found <= 1.0


class BareProgram:
    """The graph of a captured program, without weights, on the device of the module.

    Args:
        program: The program, on the CPU; only its graph and constants are kept.
        keys: What its tensors are called in the module's ``state_dict``.
        device: Where the module is.
    """

    def __init__(self, program: ExportedProgram, keys: Mapping[str, str], device: torch.device) -> None:
        self._graph = _on_device(program.graph_module, device)
        self._keys = dict(keys)
        self._specs = [(spec.kind, spec.target, spec.arg) for spec in program.graph_signature.input_specs]
        self._constants = {
            name: value.to(device) if isinstance(value, Tensor) else value for name, value in program.constants.items()
        }
        signature = program.graph_signature
        self._first_output = len(signature.output_specs) - len(signature.user_outputs)
        self._structure = program.call_spec.out_spec
        self._writes = any(_is_writing(node.target) for node in program.graph.nodes if node.op == "call_function")

    def difference(self, module: nn.Module, execution: Execution) -> float:
        """How far the program is from the module on the inputs of ``execution``.

        0 is equal, 1 is as far as rounding may be. Infinite where it fails or gives something of another kind.
        """
        if self._structure != execution.structure:
            return float("inf")
        try:
            with guarded(module):
                arguments = self._arguments(weights_of(module), execution.inputs)
                seeded()
                given = self._graph(*arguments)[self._first_output :]
                return max((difference(a, b) for a, b in zip(given, execution.outputs, strict=True)), default=0.0)
        # an operator without a kernel on this device, weights that have gone
        except Exception:
            return float("inf")

    def _arguments(self, weights: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> list[Any]:
        given = iter(inputs)
        arguments: list[Any] = []
        for kind, target, arg in self._specs:
            if kind is InputKind.USER_INPUT:
                arguments.append(arg.value if isinstance(arg, ConstantArgument) else next(given).clone())
            elif target in self._keys and kind is not InputKind.CONSTANT_TENSOR:
                held = weights[self._keys[target]]
                arguments.append(held.clone() if self._writes and kind is InputKind.BUFFER else held)
            else:
                held = self._constants[target]
                arguments.append(held.clone() if self._writes and isinstance(held, Tensor) else held)
        return arguments


def difference(one: Any, other: Any) -> float:
    """How far two leaves of outputs are from each other: 0 is equal bit by bit, 1 is as far as rounding may be.

    Infinite for other types, shapes, whole numbers and flags, and where either has a NaN: nothing can be said then.
    """
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return 0.0 if type(one) is type(other) and bool(one == other) else float("inf")
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return float("inf")
    if torch.equal(one, other):  # which no NaN is
        return 0.0
    if not (one.is_floating_point() or one.is_complex()):
        return float("inf")
    finite = one.isfinite()
    # infinities have to be the same ones
    if not torch.equal(one[~finite], other[~finite]):
        return float("inf")
    wide = torch.complex128 if one.is_complex() else torch.float64
    a, b = one[finite].to(wide), other[finite].to(wide)
    distance, norm = float((a - b).norm()), float(b.norm())
    if not distance < float("inf") or norm == 0:
        return float("inf")
    eps = torch.finfo(one.dtype).eps
    return distance / norm / eps / (_ROUNDING if eps < 1e-4 else _ROUNDING_OF_HALVES)


def _is_writing(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _on_device(module: GraphModule, device: torch.device) -> GraphModule:
    """A copy of the graph whose operators make tensors on ``device``; nodes keep nothing of the trace."""
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        node.meta = {}
        node.args = tree_map(lambda value: device if isinstance(value, torch.device) else value, node.args)
        node.kwargs = tree_map(lambda value: device if isinstance(value, torch.device) else value, node.kwargs)
    made = GraphModule(module, graph)
    for name, child in list(made.named_children()):
        if isinstance(child, GraphModule):
            setattr(made, name, _on_device(child, device))
    return made
