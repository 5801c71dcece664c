"""The compile path, the same for both TensorRTs: lower, refuse what would go wrong, partition, build, assemble.

It uses Torch-TensorRT's own decompositions, lowering passes, partitioner, converters and network interpreter. What it
replaces is the code around them, which sets up engines on a GPU that is not there and re-exports what cannot be
(``cross_compile_for_windows`` and ``save_cross_compiled_exported_program``).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node

from lightning_trt_windows._compat.torch import cpu_convolution_heuristics_off, lstm_states_are_wrong, quiet
from lightning_trt_windows._compat.torch_tensorrt import EngineFields, Upstream, decompositions
from lightning_trt_windows.backends.assemble import assemble
from lightning_trt_windows.backends.engine import ConverterError, Engine, build_engine
from lightning_trt_windows.backends.partition import engine_calls, partition
from lightning_trt_windows.backends.precision import apply_precision
from lightning_trt_windows.errors import CompileError
from lightning_trt_windows.settings import Precision

__all__ = ["Build", "compile_program"]

TOKEN = "@lightning-trt-windows:{}@"
"""Stands where an engine's payload belongs until the archive is written. Plain ASCII that JSON leaves alone."""


@dataclass(frozen=True)
class Build:
    """Result of :func:`compile_program`."""

    program: ExportedProgram
    engines: dict[str, Engine]
    """Token to engine."""
    fallback_ops: tuple[str, ...]
    notes: tuple[str, ...]


def compile_program(
    blocks: Upstream,
    program: ExportedProgram,
    settings: Any,
    *,
    precision: Precision | None,
    configure: Callable[[Any], None],
    device_record: Callable[[Engine], tuple[str, bool]],
) -> Build:
    """Compile ``program`` (consumed) into engines and what stays in PyTorch.

    Args:
        blocks: Upstream's building blocks.
        program: A captured program whose tensors are on the CPU.
        settings: Upstream's ``CompilationSettings``.
        precision: What to compute in; ``None`` is as the program was captured.
        configure: Called with TensorRT's builder configuration before each build.
        device_record: Gives upstream's device field and hardware-compatible flag for an engine.

    Raises:
        CompileError: Nothing for TensorRT to do, TensorRT refused a network, or the result would be wrong.
    """
    with quiet() as log, cpu_convolution_heuristics_off():
        try:
            lowered = _lower(blocks, program, settings, precision)
            only_in_torch = apply_precision(lowered, precision)
            parted, engines, notes = _build_all(blocks, lowered, settings, configure, only_in_torch)
        except CompileError as error:
            _add_log(error, log)
            raise
        fallback = _fallback_ops(parted)
        tokens = {name: TOKEN.format(name) for name in engines}
        fields = {}
        for name, engine in engines.items():
            device, any_newer_gpu = device_record(engine)
            fields[name] = EngineFields(
                name=f"{name}_engine",
                payload=tokens[name],
                inputs=engine.inputs,
                outputs=engine.outputs,
                device=device,
                any_newer_gpu=any_newer_gpu,
                output_allocator=engine.output_allocator,
                symbolic_shapes=engine.symbolic_shapes,
                settings=settings,
            )
        compiled = assemble(blocks, program, parted, fields)
    _refuse_cpu_operators(compiled)
    return Build(compiled, {tokens[name]: engine for name, engine in engines.items()}, fallback, notes)


def _lower(blocks: Upstream, program: ExportedProgram, settings: Any, precision: Precision | None) -> GraphModule:
    blocks.CONVERTERS.set_compilation_settings(settings)
    _refuse_lstm_states(program)
    prepared = blocks.pre_export_lowering(program, settings)
    decomposed = prepared.run_decompositions(decompositions(blocks, settings))
    _refuse_mutations(decomposed)
    _refuse_dtypes(blocks, decomposed, takes_double=settings.truncate_double or precision is not None)
    lowered = _run_passes(blocks, decomposed, settings)
    _refuse_lost_dimensions(program, lowered)
    _refuse_changed_outputs(program, lowered)
    return lowered


def _run_passes(blocks: Upstream, program: ExportedProgram, settings: Any) -> GraphModule:
    try:
        lowered: GraphModule = blocks.post_lowering(program.module(), settings)
        return lowered
    # passes raise whatever they meet
    except Exception as error:
        values = ((node, node.meta.get("val")) for node in program.graph.nodes)
        is_complex = (node for node, value in values if isinstance(value, torch.Tensor) and value.is_complex())
        likely = "".join(
            f". Perhaps it cannot make real numbers of the complex ones from {_operator(node)}{_model_line(node)}"
            for node in itertools.islice(is_complex, 1)
        )
        reason = str(error).split("\n\nWhile executing")[0].strip()
        raise CompileError(f"Torch-TensorRT's lowering failed: {type(error).__name__}: {reason}{likely}") from error


def _build_all(
    blocks: Upstream,
    lowered: GraphModule,
    settings: Any,
    configure: Callable[[Any], None],
    only_in_torch: frozenset[str],
) -> tuple[GraphModule, dict[str, Engine], tuple[str, ...]]:
    if not any(node.op == "call_function" for node in lowered.graph.nodes):
        raise CompileError(
            "The module computes nothing (its outputs are its inputs or constants), so TensorRT has nothing to do"
        )
    kept_in_torch: dict[str, str] = {}
    while True:
        parted = partition(blocks, lowered, settings, {*only_in_torch, *kept_in_torch})
        try:
            engines = {
                str(call.target): build_engine(blocks, str(call.target), graph, settings, configure)
                for call, graph in engine_calls(parted)
            }
        except ConverterError as failure:
            # one node more each time, so this ends
            if settings.require_full_compilation or failure.node.name in kept_in_torch:
                raise CompileError(
                    f"TensorRT's converter failed on {_operator(failure.node)}{_model_line(failure.node)}: {failure}"
                ) from failure.__cause__
            kept_in_torch[failure.node.name] = f"TensorRT's converter cannot take it: {failure}"
            continue
        if not engines:
            raise CompileError(_nothing_to_do(lowered, settings, kept_in_torch))
        targets = {node.name: _operator(node) + _model_line(node) for node in lowered.graph.nodes}
        notes = tuple(f"One use of {targets[name]} stays in PyTorch: {why}" for name, why in kept_in_torch.items())
        return parted, engines, notes


def _nothing_to_do(lowered: GraphModule, settings: Any, kept_in_torch: dict[str, str]) -> str:
    operators = sorted({_operator(n) for n in lowered.graph.nodes if n.op == "call_function"})
    failed = "".join(f"\n  {text}" for text in kept_in_torch.values())
    return (
        f"No part of the module runs in TensorRT, so there would be no engine in the artifact. Operators: "
        f"{', '.join(operators)}. Groups of fewer than min_block_size={settings.min_block_size} stay in PyTorch"
        + (f". Converters that failed:{failed}" if failed else "")
    )


# What upstream gets wrong in silence is refused here: a wrong artifact is worse than none.


def _refuse_mutations(program: ExportedProgram) -> None:
    signature = program.graph_signature
    buffers = sorted(signature.buffers_to_mutate.values())
    if buffers:
        raise CompileError(
            f"forward writes to {_listed(buffers, 'buffer')}. An engine has no state: the update would be frozen and "
            "dropped in silence. Return the new value as an output and pass it in as an input, or do not update it in "
            "eval mode (if not self.training: ...)"
        )
    inputs = sorted(signature.user_inputs_to_mutate.values())
    if inputs:
        raise CompileError(
            f"forward writes to {_listed(inputs, 'input')} in place, which an engine cannot do. Work on a copy "
            "(x = x.clone()) in forward"
        )


def _refuse_dtypes(blocks: Upstream, program: ExportedProgram, *, takes_double: bool) -> None:
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            continue
        if value.is_complex() and not blocks.takes_complex_numbers:
            raise CompileError(
                f"forward uses complex numbers ({_operator(node)}{_model_line(node)}), which Torch-TensorRT "
                f"{blocks.version} lowers wrongly. Install 2.14 or newer: pip install 'torch-tensorrt-rtx>=2.14'"
            )
        if node.op == "placeholder" and value.dtype == torch.float64 and not takes_double:
            raise CompileError(
                f"{node.name} is float64, and TensorRT has no float64. Convert the module and its inputs to float32 "
                "(module.float()), or compute in float32 inside (precision='32')"
            )


def _refuse_lost_dimensions(source: ExportedProgram, lowered: GraphModule) -> None:
    """Compare every input's dynamic dimensions before and after lowering.

    BatchNorm in train mode, for one, decomposes on a CPU into something that fixes the batch at the traced size.
    """
    names = {spec.arg.name for spec in source.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT}
    before = {n.name: n.meta.get("val") for n in source.graph.nodes if n.op == "placeholder" and n.name in names}
    after = [n.meta.get("val") for n in lowered.graph.nodes if n.op == "placeholder"]
    for (name, wanted), found in zip(before.items(), after, strict=True):
        if not isinstance(wanted, torch.Tensor):
            continue
        for axis, (size, left) in enumerate(zip(wanted.shape, found.shape, strict=True)):
            # a symbol that a guard has tied to a number is still a SymInt
            if isinstance(size, torch.SymInt) and not (isinstance(left, torch.SymInt) and left.node.expr.free_symbols):
                raise CompileError(
                    f"lowering fixed the dynamic dimension {axis} of input {name} at {left}; the engine would take no "
                    "other size. The usual cause is a layer in train mode (BatchNorm): call eval() on it"
                )
            if isinstance(left, torch.SymInt):
                _refuse_narrowed_range(source, name, axis, left)


def _refuse_narrowed_range(source: ExportedProgram, name: str, axis: int, size: torch.SymInt) -> None:
    """Compare the range of a dimension, which becomes TensorRT's profile, with the one that was captured."""
    for symbol in size.node.expr.free_symbols:
        environment: Any = size.node.shape_env
        wanted, left = source.range_constraints.get(symbol), environment.var_to_range.get(symbol)
        # tracing always raises a lower bound of 1 to 2, and the profile lowers it again
        if wanted is not None and left is not None and (left.lower > max(wanted.lower, 2) or left.upper < wanted.upper):
            raise CompileError(
                f"lowering narrowed dimension {axis} of input {name} from {wanted.lower}..{wanted.upper} to "
                f"{left.lower}..{left.upper}; the engine would refuse the rest. Please report the model"
            )


def _refuse_changed_outputs(source: ExportedProgram, lowered: GraphModule) -> None:
    """Compare what the program returns before and after lowering."""
    first = len(source.graph_signature.output_specs) - len(source.graph_signature.user_outputs)
    pairs = zip(source.graph.output_node().args[0][first:], _returned(lowered), strict=True)
    for index, (before, after) in enumerate(pairs):
        wanted, found = (_shape(v.meta.get("val")) if isinstance(v, Node) else None for v in (before, after))
        if wanted is None or found is None:
            continue
        sizes = [(a, b) for a, b in zip(wanted, found) if isinstance(a, int) and isinstance(b, int)]
        if len(wanted) != len(found) or any(a != b for a, b in sizes):
            raise CompileError(
                f"lowering changed output {index} from {[str(s) for s in wanted]} to {[str(s) for s in found]}"
                f"{_model_line(after)}, so the artifact would be wrong. It is a fault of PyTorch "
                f"{torch.__version__} or of Torch-TensorRT: try a newer pair"
            )


def _refuse_lstm_states(program: ExportedProgram) -> None:
    if not lstm_states_are_wrong():
        return
    for node in program.graph.nodes:
        if node.target not in (torch.ops.aten.lstm.input, torch.ops.aten.lstm.data):
            continue
        if any(user.target is operator.getitem and user.args[1] > 0 and user.users for user in node.users):
            raise CompileError(
                f"forward uses the states of an LSTM{_model_line(node)}, which PyTorch {torch.__version__} captures "
                "with a dimension too many. Install torch and torch-tensorrt-rtx 2.13 or newer, or use the LSTM's "
                "output only"
            )


def _returned(graph: GraphModule) -> tuple[Any, ...]:
    values = graph.graph.output_node().args[0]
    return tuple(values) if isinstance(values, (tuple, list)) else (values,)


def _shape(value: object) -> tuple[Any, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _refuse_cpu_operators(program: ExportedProgram) -> None:
    """An operator chosen because the program was traced on a CPU does not exist on the GPU it is meant for."""
    for node in program.graph.nodes:
        name = _operator(node) if node.op == "call_function" else ""
        if "_for_cpu" in name or name.startswith(("mkldnn.", "onednn.", "quantized.")):
            raise CompileError(
                f"{name} stays in PyTorch, but it only exists on CPUs{_model_line(node)}. Please report the model"
            )


def _fallback_ops(parted: GraphModule) -> tuple[str, ...]:
    engines = {graph for _, graph in engine_calls(parted)}
    graphs = [parted, *(m for m in parted.children() if isinstance(m, GraphModule) and m not in engines)]
    sizes = torch.SymInt, torch.SymBool, torch.SymFloat
    return tuple(
        sorted(
            {
                _operator(node)
                for graph in graphs
                for node in graph.graph.nodes
                if node.op == "call_function"
                and isinstance(node.target, torch._ops.OpOverload)
                and not isinstance(node.meta.get("val"), sizes)
            }
        )
    )


def _operator(node: Node) -> str:
    target = node.target
    return str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))


def _model_line(node: Node) -> str:
    """Where in the user's code a node comes from, as `` (model.py:12: x = self.up(x))``; empty if unknown."""
    trace = node.meta.get("stack_trace")
    lines = [line.strip() for line in trace.strip().splitlines()] if trace else []
    # the module's own line rather than the one inside torch.nn that it calls
    places = [i for i, line in enumerate(lines) if line.startswith("File ") and "/torch/" not in line]
    if not places:
        return ""
    _, file, rest = lines[places[-1]].split('"', 2)
    code = lines[places[-1] + 1] if places[-1] + 1 < len(lines) else ""
    number = rest.partition("line ")[2].partition(",")[0]
    return f" ({file.rsplit('/', 1)[-1]}:{number}: {code})"


def _listed(names: list[str], noun: str) -> str:
    return f"the {noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _add_log(error: CompileError, log: list[str]) -> None:
    errors = [line for line in log if line.startswith("ERROR")]
    if errors and error.args:
        error.args = (error.args[0] + "\nTorch-TensorRT said:\n" + "\n".join(f"  {line}" for line in errors[-5:]),)
