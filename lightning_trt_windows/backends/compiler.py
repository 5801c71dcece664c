"""The compile path, the same for both TensorRTs: lower, refuse what would go wrong, partition, build, assemble.

It uses Torch-TensorRT's own decompositions, lowering passes, partitioner, converters and network interpreter. What it
replaces is the code around them, which sets up engines on a GPU that is not there and re-exports what cannot be
(``cross_compile_for_windows`` and ``save_cross_compiled_exported_program``).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from lightning_trt_windows._compat.modelopt import quantizers_run_on_cpus
from lightning_trt_windows._compat.precision import exact_float32
from lightning_trt_windows._compat.recurrent import recurrent_nets_kept_whole
from lightning_trt_windows._compat.torch import cpu_convolution_heuristics_off
from lightning_trt_windows._compat.torch_tensorrt import EngineFields, Upstream, decompositions, lower
from lightning_trt_windows.artifact.manifest import CheckRecord, LeftToPyTorch, OperatorCounts
from lightning_trt_windows.backends.assemble import assemble, take_lines
from lightning_trt_windows.backends.binding_names import ProgramNames, binding_names
from lightning_trt_windows.backends.cpu_operators import refuse_cpu_operators
from lightning_trt_windows.backends.decomposed import decomposed_otherwise
from lightning_trt_windows.backends.decompositions import decomposed as decompositions_of
from lightning_trt_windows.backends.decompositions import forget
from lightning_trt_windows.backends.engine import Configure, ConverterError, Engine, build_engine
from lightning_trt_windows.backends.lost_dimensions import refuse_lost_dimensions
from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.backends.number_check import Boundary, NumberCheck, WrongNumbersError, describe
from lightning_trt_windows.backends.partition import engine_calls, partition
from lightning_trt_windows.backends.precision import apply_precision
from lightning_trt_windows.backends.profile_check import OutsideProfileError
from lightning_trt_windows.backends.profiles import Ranges, promised_ranges
from lightning_trt_windows.backends.recurrent import faster_in_torch, keep_whole, register_converters
from lightning_trt_windows.backends.rewrites import (
    OWN_DECOMPOSITIONS,
    of_types_without_engines,
    own_converters,
    rewrite,
    with_resizes_as_views,
)
from lightning_trt_windows.backends.samples import Samples
from lightning_trt_windows.backends.two_sizes import room_given
from lightning_trt_windows.backends.unbounded import takes_unbounded
from lightning_trt_windows.backends.unsupported import (
    kept_in_torch,
    refuse_changed_outputs,
    refuse_dtypes,
    refuse_mutations,
)
from lightning_trt_windows.errors import CompileError
from lightning_trt_windows.progress.upstream_output import quiet
from lightning_trt_windows.settings import Precision, Recurrent

__all__ = ["LINUX", "WINDOWS", "Build", "compile_program"]

WINDOWS, LINUX = "windows_x86_64", "linux_x86_64"
"""Platforms of engines, as upstream's C++ writes them; the Python runtime's spelling win_x86_64 is unknown to it."""

TOKEN = "@lightning-trt-windows:{}@"
"""Stands where an engine's payload belongs until the archive is written. Plain ASCII that JSON leaves alone."""


@dataclass(frozen=True)
class Build:
    """Result of ``compile_program``."""

    program: ExportedProgram
    engines: dict[str, Engine]
    """Token to engine."""
    fallback_ops: tuple[str, ...]
    operators: OperatorCounts
    notes: tuple[str, ...]
    check: CheckRecord | None = None
    """What was compared before the engines were built; ``None`` where nothing was asked for."""
    replay: Mapping[str, tuple[Boundary, ...]] = field(default_factory=dict)
    """What passed the borders of each engine during the check, by the engine's name."""
    lines: Mapping[str, str] = field(default_factory=dict)
    """The line of the model that a node of the program comes from, by the node's name; no file says it."""


def compile_program(
    blocks: Upstream,
    program: ExportedProgram,
    settings: Any,
    *,
    precision: Precision | None,
    configure: Configure,
    device_record: Callable[[Engine], tuple[str, bool]],
    platform: str = WINDOWS,
    samples: Samples | None = None,
    names: ProgramNames | None = None,
    recurrent: Recurrent = "engine",
    scratch: Path | None = None,
    same: str | None = None,
) -> Build:
    """Compile ``program`` (consumed) into engines and the fallback between them, which PyTorch runs.

    Args:
        blocks: Upstream's building blocks.
        program: A captured program whose tensors are on the CPU.
        settings: Upstream's ``CompilationSettings``.
        precision: What to compute in; ``None`` is as the program was captured.
        configure: Entered with TensorRT's builder configuration around each build.
        device_record: Gives upstream's device field and hardware-compatible flag for an engine.
        platform: What the engines are for, as upstream's C++ writes it.
        samples: Inputs to check the numbers at; ``None`` checks nothing.
        names: What bindings are called by; ``None`` leaves them upstream's names.
        recurrent: Where LSTM, GRU and RNN run.
        scratch: Directory where large engines may be while they are not written; ``None`` keeps them in memory.
        same: As for ``decompositions.decomposed``.

    Returns:
        The engines and the program around them.

    Raises:
        CompileError: Nothing for TensorRT to do, TensorRT refused a network, or the result would be wrong.
        OutputError: The disk does not take an engine.
    """
    ranges = promised_ranges(program)
    quantizers_run_on_cpus()
    # once in a process, and so not among what is taken back below
    register_converters(blocks)
    with quiet() as log, exact_float32(), cpu_convolution_heuristics_off(), own_converters(blocks):
        try:
            check = None
            if samples is not None:
                samples.run(program)
                check = NumberCheck(samples)
            with room_given(program):
                lowered, table = _lower(blocks, program, settings, precision, names, same)
            if check is not None:
                check.suspect = functools.partial(decomposed_otherwise, program, table)
            only_in_torch = apply_precision(lowered, precision) | kept_in_torch(lowered)
            only_in_torch |= of_types_without_engines(lowered, takes_double=settings.truncate_double)
            slower = faster_in_torch(lowered, recurrent)
            parted, engines, notes, wrong = _build_all(
                blocks, lowered, settings, configure, ranges, only_in_torch, check, names, slower, recurrent, scratch
            )
        except CompileError as error:
            _add_log(error, log)
            raise
        fallback = list(_operators(_outside_of_engines(parted)))
        inside = [graph for _, graph in engine_calls(parted)]
        counts = OperatorCounts(tensorrt=sum(1 for _ in _operators(inside)), pytorch=len(fallback))
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
                platform=platform,
                output_allocator=engine.output_allocator,
                symbolic_shapes=engine.symbolic_shapes,
                settings=settings,
            )
        compiled = assemble(blocks, program, parted, fields)
        lines = take_lines(compiled)
    tokens_to_engines = {tokens[name]: engine for name, engine in engines.items()}
    return Build(
        compiled,
        tokens_to_engines,
        tuple(sorted(set(fallback))),
        counts,
        notes,
        None if samples is None or check is None else check.record(samples.mode, wrong),
        {} if check is None else {name: tuple(boundaries) for name, boundaries in check.boundaries.items()},
        lines,
    )


def _lower(
    blocks: Upstream,
    program: ExportedProgram,
    settings: Any,
    precision: Precision | None,
    names: ProgramNames | None,
    same: str | None,
) -> tuple[GraphModule, dict[Any, Any]]:
    """The lowered graph, and what its operators were decomposed by."""
    blocks.CONVERTERS.set_compilation_settings(settings)
    table = {**keep_whole(decompositions(blocks, settings)), **OWN_DECOMPOSITIONS}
    with_resizes_as_views(program)
    with _failures_explained(program), recurrent_nets_kept_whole():
        decomposed = decompositions_of(
            same, program, lambda given: blocks.pre_export_lowering(given, settings).run_decompositions(table)
        )
    refuse_mutations(decomposed)
    refuse_dtypes(blocks, decomposed, takes_double=settings.truncate_double or precision is not None)
    with _failures_explained(decomposed), recurrent_nets_kept_whole():
        try:
            lowered: GraphModule = lower(blocks, decomposed, settings)
        finally:
            forget(decomposed)
        rewrite(lowered)
    refuse_lost_dimensions(program, lowered, None if names is None else names.inputs, table)
    refuse_changed_outputs(program, lowered)
    return lowered, table


@contextlib.contextmanager
def _failures_explained(program: ExportedProgram) -> Iterator[None]:
    try:
        yield
    except CompileError:
        raise
    # passes raise whatever they meet
    except Exception as error:
        values = ((node, node.meta.get("val")) for node in program.graph.nodes)
        is_complex = (node for node, value in values if isinstance(value, torch.Tensor) and value.is_complex())
        likely = "".join(
            f". Perhaps it cannot make real numbers of the complex ones from {operator_name(node)}{model_line(node)}"
            for node in itertools.islice(is_complex, 1)
        )
        # neither the node in PyTorch's notation nor the frames of its C++
        reason = str(error).split("\n\nWhile executing")[0].split("\nException raised from")[0].strip()
        raise CompileError(f"Torch-TensorRT's lowering failed: {type(error).__name__}: {reason}{likely}") from error


def _build_all(
    blocks: Upstream,
    lowered: GraphModule,
    settings: Any,
    configure: Configure,
    ranges: Ranges,
    only_in_torch: frozenset[str],
    check: NumberCheck | None,
    names: ProgramNames | None,
    slower: Mapping[str, str],
    recurrent: Recurrent,
    scratch: Path | None,
) -> tuple[GraphModule, dict[str, Engine], tuple[str, ...], list[LeftToPyTorch]]:
    if not any(node.op == "call_function" for node in lowered.graph.nodes):
        raise CompileError(
            "The module computes nothing (its outputs are its inputs or constants), so TensorRT has nothing to do. An "
            "assignment to the whole of a tensor (x[:] = 0.0) makes it a constant"
        )
    kept_in_torch = dict(slower)
    wrong: list[LeftToPyTorch] = []
    while True:
        parted = partition(blocks, lowered, settings, {*only_in_torch, *kept_in_torch})
        if recurrent == "auto" and not slower.keys().isdisjoint(kept_in_torch) and not _works_on_tensors(parted):
            # slower in an engine, but there would be none that is worth it
            kept_in_torch = {name: why for name, why in kept_in_torch.items() if name not in slower}
            continue
        if unbounded := {name: why for name, why in takes_unbounded(parted).items() if name not in kept_in_torch}:
            kept_in_torch |= unbounded
            continue
        refuse_cpu_operators(_outside_of_engines(parted))
        if check is not None:
            check.run_partitions(parted)
        called = {} if names is None else binding_names(parted, names)
        engines: dict[str, Engine] = {}
        try:
            for call, graph in engine_calls(parted):
                name = str(call.target)
                engines[name] = build_engine(
                    blocks, name, graph, settings, configure, ranges, check, called.get(name), scratch
                )
        except WrongNumbersError as failure:
            if settings.require_full_compilation or failure.node.name in kept_in_torch:
                raise CompileError(
                    f"TensorRT would not compute what the module does: {operator_name(failure.node)}"
                    f"{model_line(failure.node)}: {failure}"
                ) from failure
            kept_in_torch[failure.node.name] = str(failure)
            wrong.append(describe(failure.node, str(failure)))
            continue
        except OutsideProfileError as failure:
            if settings.require_full_compilation:
                raise CompileError(
                    f"TensorRT cannot have {operator_name(failure.nodes[0])}{model_line(failure.nodes[0])}: {failure}"
                ) from failure
            kept_in_torch |= {node.name: str(failure) for node in failure.nodes}
            continue
        except ConverterError as failure:
            # one node more each time, so this ends
            if settings.require_full_compilation or failure.node.name in kept_in_torch:
                raise CompileError(
                    f"TensorRT's converter failed on {operator_name(failure.node)}{model_line(failure.node)}: {failure}"
                ) from failure.__cause__
            kept_in_torch[failure.node.name] = f"TensorRT's converter cannot take it: {failure}"
            continue
        if not engines:
            raise CompileError(_nothing_to_do(lowered, settings, kept_in_torch))
        targets = {node.name: operator_name(node) + model_line(node) for node in lowered.graph.nodes}
        notes = tuple(f"One use of {targets[name]} falls back to PyTorch: {why}" for name, why in kept_in_torch.items())
        return parted, engines, notes, wrong


def _outside_of_engines(parted: GraphModule) -> list[GraphModule]:
    """The graphs that fall back to PyTorch: the one around all parts, and the parts that are no engines."""
    inside = [graph for _, graph in engine_calls(parted)]
    return [parted, *(m for m in parted.children() if isinstance(m, GraphModule) and m not in inside)]


def _works_on_tensors(parted: GraphModule) -> bool:
    """Whether an engine would compute something of what it is given, and not of its sizes alone."""
    for _, graph in engine_calls(parted):
        given = {node for node in graph.graph.nodes if node.op == "placeholder"}
        for node in graph.graph.nodes:
            is_tensor = isinstance(node.meta.get("val"), torch.Tensor)
            if node.op == "call_function" and is_tensor and not given.isdisjoint(node.all_input_nodes):
                return True
    return False


def _nothing_to_do(lowered: GraphModule, settings: Any, kept_in_torch: dict[str, str]) -> str:
    operators = sorted({operator_name(n) for n in lowered.graph.nodes if n.op == "call_function"})
    failed = "".join(f"\n  {text}" for text in kept_in_torch.values())
    return (
        f"No part of the module runs in TensorRT, so there would be no engine in the artifact. Operators: "
        f"{', '.join(operators)}. Groups of fewer than min_block_size={settings.min_block_size} fall back to PyTorch"
        + (f". Converters that failed:{failed}" if failed else "")
    )


def _operators(graphs: Iterable[GraphModule]) -> Iterator[str]:
    """The name of each operator that computes tensors, as often as it is called."""
    sizes = torch.SymInt, torch.SymBool, torch.SymFloat
    for graph in graphs:
        for node in graph.graph.nodes:
            is_operator = node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
            if is_operator and not isinstance(node.meta.get("val"), sizes):
                yield operator_name(node)


def _add_log(error: CompileError, log: list[str]) -> None:
    errors = [line for line in log if line.startswith("ERROR")]
    if errors and error.args:
        error.args = (error.args[0] + "\nTorch-TensorRT said:\n" + "\n".join(f"  {line}" for line in errors[-5:]),)
