"""Whether engines compute what the module computes, seen before they are built and without a GPU.

Three things are compared, each on the same inputs: the captured program with the lowered graph; each partition of the
lowered graph with the TensorRT network that an engine will be built from, evaluated on the CPU; and where a network
differs, node by node, to find the first one that was converted into something else. The shapes that reach an engine on
the way are compared with its optimization profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from lightning_trt_windows._compat.torch_tensorrt import Upstream
from lightning_trt_windows.artifact.manifest import CheckedSizes, CheckRecord, LeftToPyTorch
from lightning_trt_windows.backends.magnified import magnified
from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.backends.partition import engine_calls
from lightning_trt_windows.backends.profile_check import check_profile
from lightning_trt_windows.backends.samples import GraphRun, Sample, Samples
from lightning_trt_windows.errors import CompileError, is_out_of_memory
from lightning_trt_windows.modules.numbers import TOLERANCES, compare, relative_norm
from lightning_trt_windows.network import (
    BudgetExceededError,
    Network,
    NetworkError,
    UnknownLayerError,
    read_network,
)

__all__ = ["Boundary", "NumberCheck", "WrongNumbersError", "describe"]

_LOCAL = {torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Relative norm by which one node may differ; 1e-3 in every other type."""
_CASTS = {torch.ops.aten._to_copy.default}
_NODE_SECONDS = 60.0
"""How long the search for a node may take."""


class WrongNumbersError(Exception):
    """A node was converted into something else; the caller lets it fall back to PyTorch and tries again."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(why)
        self.node = node


@dataclass
class Boundary:
    """What goes into a partition and comes out of it, for one sample."""

    sample: Sample
    inputs: list[Tensor]
    outputs: list[Any]


@dataclass
class NumberCheck:
    """Checks one program while it is compiled.

    Args:
        samples: What the captured program gave.
        suspect: Finds the operator that is at fault where lowering is.
    """

    samples: Samples
    suspect: Callable[[Sequence[Tensor]], str] | None = None
    """Says which operator of the captured program decomposes into something else, given the program's inputs."""
    boundaries: dict[str, list[Boundary]] = field(default_factory=dict)
    """Boundaries by partition."""
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    """Sample to output of the program, by number, to the relative norm of the lowered graph's difference."""
    engine_errors: dict[str, float] = field(default_factory=dict)
    """Sample to the largest relative norm of any engine's output."""

    def run_partitions(self, parted: GraphModule) -> None:
        """Run the partitioned graph, and keep what passes the borders of its engines.

        Raises:
            CompileError: Lowering has changed what the program computes.
        """
        self.boundaries = {str(call.target): [] for call, _ in engine_calls(parted)}
        self.engine_errors = {}
        kept = 0
        ran: list[Sample] = []
        failed: list[tuple[Sample, Exception]] = []
        for sample in list(self.samples.used):
            found: dict[str, Boundary] = {}
            run = _PartedRun(parted, sample, found)
            device = _device_of(parted)
            try:
                with torch.no_grad():
                    inputs = [tensor.to(device) for tensor in sample.inputs]
                    results = run.run(*_arguments(parted, inputs), enable_io_processing=False)
            except Exception as error:
                failed.append((sample, error))
                continue
            ran.append(sample)
            values = list(results) if isinstance(results, (tuple, list)) else [results]
            self._compare_lowered(parted, sample, values)
            kept += sum(_bytes([*boundary.inputs, *boundary.outputs]) for boundary in found.values())
            if kept > self.samples.memory and any(self.boundaries.values()):
                self._leave_out(sample, "what passes between engines takes too much memory")
                continue
            for name, boundary in found.items():
                self.boundaries[name].append(boundary)
        for sample, reason in failed:
            self._fails_at(sample, reason, ran)

    def _fails_at(self, sample: Sample, error: Exception, ran: Sequence[Sample]) -> None:
        """Leave ``sample`` out, unless it is its sizes that the lowered graph fails at.

        Raises:
            CompileError: The module runs at these sizes, and the lowered graph at others only.
        """
        what = f"{type(error).__name__}: {error}"
        if not ran or is_out_of_memory(error):  # an operator that CPUs lack in this type
            self._leave_out(sample, f"the lowered graph does not run on the CPU: {what}")
            return
        others = " and ".join(f"{other.name} ({_sizes(other)})" for other in ran)
        raise CompileError(
            f"the lowered graph fails at the sizes {sample.name} ({_sizes(sample)}), at which the module runs: {what}\n"
            f"It runs at the sizes {others}. Give ranges in which it runs; check=False exports it all the same"
        ) from error

    def check_network(self, blocks: Upstream, name: str, graph: GraphModule, interpreter: Any) -> None:
        """Evaluate the network of one engine at every sample.

        Args:
            blocks: Upstream's building blocks.
            name: Name of the partition.
            graph: The partition.
            interpreter: Upstream's, after it has made the network; ``tensors_of`` holds the tensors of each node.

        Raises:
            WrongNumbersError: A node that was converted into something else.
            OutsideProfileError: Sizes that values decide reach the engine, and its profile does not hold them.
            CompileError: The network differs, and no single node shows it; or the engine would refuse what reaches it.
        """
        if not self.boundaries.get(name):
            return
        for boundary in self.boundaries[name]:
            at = f"the sizes {boundary.sample.name} ({_sizes(boundary.sample)})"
            check_profile(name, graph, interpreter, [tensor.shape for tensor in boundary.inputs], at)
        net = interpreter.ctx.net
        network = read_network(blocks.trt, net, weights=getattr(interpreter.ctx, "weight_refit_map", None))
        names = list(interpreter._input_names), list(interpreter._output_names)
        for boundary in self.boundaries[name]:
            inputs = dict(zip(names[0], (tensor.cpu() for tensor in boundary.inputs)))
            try:
                evaluation = network.evaluate(inputs, names[1], memory=None)
            except UnknownLayerError as error:
                self._note(f"{name}: {error}")
                return
            except BudgetExceededError as error:
                self._note(f"{name} at the sizes {boundary.sample.name}: {error}")
                continue
            except NetworkError as error:
                self._blame(network, graph, interpreter, boundary, f"the engine could not run: {error}")
                raise CompileError(f"the engine {name} could not run: {error}") from error
            found = [evaluation.values[output] for output in names[1]]
            worst = max((_difference(ours, theirs) for ours, theirs in zip(found, boundary.outputs)), default=0.0)
            low = _computed_in([graph])
            allowed = max(
                (_allowed(theirs, low) for theirs in boundary.outputs if isinstance(theirs, Tensor)), default=1e-3
            )
            if worst > allowed:
                nearest = self._blame(network, graph, interpreter, boundary, f"relative error {worst:.1e}")
                if worst > _most(boundary.outputs, low):
                    undefined = "".join(f"; {warning}" for warning in evaluation.warnings)
                    raise CompileError(
                        f"the engine {name} would compute something else than the module: relative error {worst:.1e} "
                        f"at the sizes {boundary.sample.name} ({_sizes(boundary.sample)}), and no single operator "
                        f"shows it{nearest}{undefined}. {_why_none(graph, boundary.inputs, worst, low)}; check=False "
                        "exports it all the same"
                    )
            sample = boundary.sample.name
            self.engine_errors[sample] = max(worst, self.engine_errors.get(sample, 0.0))

    def _blame(self, network: Network, graph: GraphModule, interpreter: Any, boundary: Boundary, what: str) -> str:
        """Find the first node whose tensors differ, given what PyTorch has for everything before it.

        Returns:
            The node that differs most, in words.

        Raises:
            WrongNumbersError: There is one that differs too much.
        """
        nearest, least = "", 0.0
        values: dict[str, Any] = {}
        with torch.no_grad():
            GraphRun(graph, lambda node, value: values.__setitem__(node.name, value)).run(*boundary.inputs)
        tensors = interpreter.tensors_of
        known = dict(zip(interpreter._input_names, (tensor.cpu() for tensor in boundary.inputs)))
        for node in graph.graph.nodes:
            if node.op != "call_function" or node.name not in tensors:
                continue
            pairs = [
                (t.name, v) for t, v in zip(tensors[node.name], _leaves(values[node.name])) if isinstance(v, Tensor)
            ]
            given = dict(known)
            for source in node.all_input_nodes:
                for tensor, value in zip(tensors.get(source.name, ()), _leaves(values.get(source.name))):
                    if isinstance(value, Tensor):
                        given[tensor.name] = value.cpu()
            try:
                found = network.evaluate(given, [name for name, _ in pairs], seconds=_NODE_SECONDS).values
            except NetworkError as error:
                raise WrongNumbersError(node, f"its engine could not run: {error}") from error
            except (UnknownLayerError, BudgetExceededError):
                return nearest
            for name, wanted in pairs:
                differs = _difference(found[name].to(wanted.dtype), wanted)
                if differs > least:
                    nearest, least = (
                        f"; {operator_name(node)}{model_line(node)} differs most, by {differs:.1e}",
                        differs,
                    )
                if differs > _LOCAL.get(wanted.dtype, 1e-3):
                    raise WrongNumbersError(
                        node,
                        f"its engine would compute something else at the sizes {boundary.sample.name} "
                        f"({_sizes(boundary.sample)}): relative error {differs:.1e}",
                    )
        return nearest

    def _compare_lowered(self, parted: GraphModule, sample: Sample, values: Sequence[Any]) -> None:
        errors: dict[str, float] = {}
        returned = _returned(parted)
        low = _computed_in([module for module in parted.modules() if isinstance(module, GraphModule)])
        for number, (found, wanted) in enumerate(zip(values, sample.wanted, strict=True)):
            if not isinstance(wanted, Tensor):
                continue
            if odd := int((~wanted.isfinite()).sum()):
                self._note(
                    f"{odd} of {wanted.numel()} values of output {number} are NaN or infinite in the module as well, "
                    f"at the sizes {sample.name}"
                )
            error = _difference(found, wanted)
            errors[str(number)] = error
            if error > _most([found, wanted], low):
                node = returned[number] if number < len(returned) else None
                line = model_line(node) if isinstance(node, Node) else ""
                culprit = self.suspect(sample.inputs) if self.suspect is not None else ""
                fault = (
                    f"It is a fault of PyTorch {torch.__version__} or of Torch-TensorRT, in one of their decompositions"
                )
                why = f"{culprit}. {fault}"
                if not culprit:
                    given = [tensor.to(_device_of(parted)) for tensor in sample.inputs]
                    why = f"No single operator shows it. {_why_none(parted, given, error, low, otherwise=fault)}"
                raise CompileError(
                    f"lowering has changed what the module computes: output {number}{line} has a relative error of "
                    f"{error:.1e} at the sizes {sample.name} ({_sizes(sample)}). {why}; check=False exports it all the "
                    "same"
                )
        self.errors[sample.name] = errors

    def _leave_out(self, sample: Sample, why: str) -> None:
        self.samples.used.remove(sample)
        self._note(f"the sizes {sample.name}: {why.splitlines()[0]}")

    def _note(self, sentence: str) -> None:
        if sentence not in self.samples.not_checked:
            self.samples.not_checked.append(sentence)

    def record(self, mode: Literal["auto", "full"], left_to_pytorch: Sequence[LeftToPyTorch]) -> CheckRecord:
        """Say what was compared.

        Args:
            mode: What the user asked for.
            left_to_pytorch: Operators that were found to be converted wrongly.

        Returns:
            The record for the manifest.
        """
        compared = (
            CheckedSizes(
                name=sample.name,
                sizes=dict(sample.sizes),
                lowered=max(self.errors.get(sample.name, {}).values(), default=0.0),
                engines=self.engine_errors[sample.name],
            )
            for sample in self.samples.used
            if sample.name in self.engine_errors
        )
        return CheckRecord(
            mode=mode,
            compared=tuple(compared),
            not_checked=tuple(self.samples.not_checked),
            left_to_pytorch=tuple(left_to_pytorch),
        )


class _PartedRun(GraphRun):
    """Runs a partitioned graph, and keeps what its engines take and give."""

    def __init__(self, parted: GraphModule, sample: Sample, found: dict[str, Boundary]) -> None:
        super().__init__(parted)
        self._sample = sample
        self._found = found

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run a partition. Its outputs go on as an engine's do: contiguous."""
        child = self.fetch_attr(str(target))
        result = GraphRun(child).run(*args) if isinstance(child, GraphModule) else child(*args, **kwargs)
        if "_run_on_acc" not in str(target):
            return result
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        outputs = [value.contiguous() if isinstance(value, Tensor) else value for value in outputs]
        self._found[str(target)] = Boundary(self._sample, list(args), outputs)
        return type(result)(outputs) if isinstance(result, (tuple, list)) else outputs[0]


def _returned(parted: GraphModule) -> list[Any]:
    values = parted.graph.output_node().args[0]
    return list(values) if isinstance(values, (tuple, list)) else [values]


def _arguments(parted: GraphModule, inputs: Sequence[Tensor]) -> list[Any]:
    """Arguments of the lowered graph: tensors in order, and what was fixed at the capture as it was."""
    given = iter(inputs)
    found = []
    for node in parted.graph.nodes:
        if node.op == "placeholder":
            known = node.meta.get("val")
            found.append(next(given) if isinstance(known, Tensor) else known)
    return found


def _device_of(module: GraphModule) -> torch.device:
    return next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def _difference(found: Any, wanted: Any) -> float:
    """Relative norm, or for whole numbers and flags the share of values that differ.

    What is not finite in the module is no number to compare with; what is finite there must be so here.
    """
    if not isinstance(wanted, Tensor):
        return 0.0 if not isinstance(found, Tensor) or found.numel() == 1 else math.inf
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return math.inf
    found, wanted = found.detach().cpu(), wanted.detach().cpu()
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return compare("", found.to(wanted.dtype), wanted, 0.0).differing or 0.0
    usable = wanted.isfinite()
    return relative_norm(found, wanted) if bool(usable.all()) else relative_norm(found[usable], wanted[usable])


def _computed_in(graphs: Sequence[GraphModule]) -> frozenset[str]:
    """Floating types that operators in ``graphs`` compute in, casts apart; with ``precision`` not those of outputs."""
    nodes = (node for module in graphs for node in module.graph.nodes if node.op == "call_function")
    leaves = (value for node in nodes if node.target not in _CASTS for value in _leaves(node.meta.get("val")))
    return frozenset(
        str(value.dtype).removeprefix("torch.")
        for value in leaves
        if isinstance(value, Tensor) and value.is_floating_point()
    )


def _why_none(
    graph: GraphModule, inputs: Sequence[Any], error: float, computed_in: frozenset[str], otherwise: str = ""
) -> str:
    """Why the whole of ``graph`` may differ by ``error`` where none of its operators does."""

    def run(given: Sequence[Any]) -> list[Any]:
        return _leaves(GraphRun(graph).run(*_arguments(graph, given), enable_io_processing=False))

    made = magnified(run, inputs, _difference)
    if made > error / 10:
        return (
            f"The module magnifies the least difference: inputs that change in their last bit change its results by "
            f"{made:.1e}, so that nothing that rounds in another order gives its numbers"
        )
    if low := sorted(computed_in & {"float16", "bfloat16"}):
        return f"Rounding to {' and '.join(low)} adds up over its operators: precision='32' computes in float32"
    return otherwise or "It is a fault of this check or of TensorRT's converters: please report the model"


def _allowed(wanted: Tensor, computed_in: frozenset[str]) -> float:
    if not wanted.is_floating_point():
        return 1e-3 if wanted.is_complex() else 0.0
    kinds = {str(wanted.dtype).removeprefix("torch."), *computed_in}
    return max(TOLERANCES.get(kind, 1e-3) for kind in kinds)


def _most(values: Sequence[Any], computed_in: frozenset[str]) -> float:
    """What rounding alone may come to in a deep network: ten times what is usual, nothing where types are exact."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return max((10 * _allowed(value, computed_in) for value in tensors), default=0.0) or 0.01


def _leaves(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _bytes(values: Sequence[Any]) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def _sizes(sample: Sample) -> str:
    return ", ".join(f"{name}={size}" for name, size in sample.sizes.items()) or "the only ones"


def describe(node: Node, why: str) -> LeftToPyTorch:
    """Make the manifest's record of a node that falls back to PyTorch."""
    return LeftToPyTorch(operator=operator_name(node), line=model_line(node).strip(" ()"), reason=why)
