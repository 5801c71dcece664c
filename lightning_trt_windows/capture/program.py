"""LightningModule and ranges to ExportedProgram, leaving the module as it was.

The module is traced in eval mode with ``torch.export`` (non-strict), with whatever weights it holds at that time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from lightning_trt_windows._compat.deepspeed import linear_of_torch
from lightning_trt_windows.artifact.manifest import OutputRecord
from lightning_trt_windows.artifact.shapes import InputSpec, InputTree
from lightning_trt_windows.capture.calling import STAND_IN, Calling, Method
from lightning_trt_windows.capture.dimensions import Dimensions
from lightning_trt_windows.capture.tracing import DimensionError, trace
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.modules.containers import leaves
from lightning_trt_windows.modules.registration import leaf_names, register_named_tuples
from lightning_trt_windows.modules.state import as_it_was, attributes_kept, exported_part, original, outside_of_steps

__all__ = ["STAND_IN", "Captured", "CapturedInput", "DimensionError", "capture"]


@dataclass(frozen=True)
class CapturedInput:
    """One tensor input of the program."""

    name: str
    """Dotted name: ``x``, ``batch.image``, ``pair.0``. Entries of ``**kwargs`` are arguments of the program."""
    spec: InputSpec
    symbols: tuple[str | None, ...]
    """Name of each axis' size, ``None`` where it is static; equal names always have equal sizes."""
    path: str = ""
    """Dotted name among the arguments of the method: ``kwargs.x`` where ``name`` is ``x``."""


@dataclass(frozen=True)
class Captured:
    """An ExportedProgram on the CPU, and what its inputs and outputs are called."""

    program: ExportedProgram
    inputs: tuple[CapturedInput, ...]
    outputs: tuple[OutputRecord, ...]
    notes: tuple[str, ...] = ()
    """What the program leaves out, a sentence each."""


def capture(module: nn.Module, inputs: Mapping[str, InputTree], *, method: str = "forward") -> Captured:
    """Trace ``method`` of ``module`` in eval mode.

    Args:
        module: Any module; comes back exactly as it was, also after a failure. What ``torch.compile`` wraps is traced
            in its stead.
        inputs: Argument name to ``InputSpec``, a constant, or a dict, list or tuple of these.
        method: The method to export, or a submodule (``"net.encoder"``); its own signature is the artifact's.

    Returns:
        The program with its inputs and outputs.

    Raises:
        ConfigurationError: ``inputs`` do not fit the signature of ``method``.
        CaptureError: ``torch.export`` cannot trace it; the message names the line.
    """
    module = original(module)
    owner, name = exported_part(module, method)
    owner = original(owner)
    target = owner if name == "forward" else Method(owner, name)
    calling = Calling(getattr(owner, name), inputs)
    _check_arguments(calling, inputs, f"{type(owner).__name__}.{name}")
    # traced where it is, which is on a GPU in the middle of a training
    held = next(iter([*module.parameters(), *module.buffers()]), None)
    device = torch.device("cpu") if held is None else held.device
    with as_it_was(module), attributes_kept(module), linear_of_torch(), outside_of_steps(device):
        traced = trace(target, calling, calling.templates, device)
    program = traced.program
    for spec in (program.call_spec.in_spec, program.call_spec.out_spec):
        if spec is not None:
            register_named_tuples(spec)
    captured = tuple(
        CapturedInput(_renamed(path, calling.names), leaf, Dimensions.symbols(path, leaf), path)
        for path, leaf in leaves(calling.templates)
        if isinstance(leaf, InputSpec)
    )
    return Captured(_on_cpu(program), captured, _outputs(program, captured), traced.notes)


def _renamed(path: str, names: Mapping[str, str]) -> str:
    for beginning, name in names.items():
        if path == beginning or path.startswith(f"{beginning}."):
            return name + path[len(beginning) :]
    return path


def _check_arguments(calling: Calling, inputs: Mapping[str, InputTree], owner: str) -> None:
    parameters = calling.signature.parameters
    if unknown := [name for name in inputs if name not in parameters]:
        raise ConfigurationError(
            f"{owner} has no argument {', '.join(unknown)}; its arguments are {', '.join(parameters) or 'none'}"
        )
    if missing := [
        name
        for name, p in parameters.items()
        if name not in inputs and p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]:
        raise ConfigurationError(
            f"{owner} needs {', '.join(missing)}, for which no shape is known. Give it: "
            f"inputs={{{', '.join(f'{name!r}: InputSpec(...)' for name in missing)}}}"
        )


def _on_cpu(program: ExportedProgram) -> ExportedProgram:
    tensors = [*program.state_dict.values(), *(c for c in program.constants.values() if isinstance(c, torch.Tensor))]
    devices = {t.device.type for t in tensors}
    devices |= {
        value.device.type
        for node in program.graph.nodes
        for value in tree_leaves(node.meta.get("val"))
        if isinstance(value, torch.Tensor)
    }
    if devices <= {"cpu"}:
        return program
    # of no use after the trace, and they are on the other device
    program.example_inputs = None
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, "cpu")


def _outputs(program: ExportedProgram, inputs: tuple[CapturedInput, ...]) -> tuple[OutputRecord, ...]:
    output = next(node for node in program.graph.nodes if node.op == "output")
    first = len(program.graph_signature.output_specs) - len(program.graph_signature.user_outputs)
    names = _size_names(program, inputs)
    records = []
    for name, value in zip(_output_names(program), output.args[0][first:], strict=True):
        result = value.meta.get("val") if isinstance(value, torch.fx.Node) else value
        if isinstance(result, torch.Tensor):
            shape = tuple(s if isinstance(s, int) else str(s.node.expr.subs(names)) for s in result.shape)
            records.append(OutputRecord(name=name, dtype=str(result.dtype).removeprefix("torch."), shape=shape))
        else:
            kind = "int" if isinstance(result, torch.SymInt) else type(result).__name__.lower()
            records.append(OutputRecord(name=name, dtype=kind, shape=()))
    return tuple(records)


def _size_names(program: ExportedProgram, inputs: tuple[CapturedInput, ...]) -> dict[sympy.Symbol, sympy.Expr]:
    """PyTorch's symbols (``s77``) in terms of the names that people gave (``batch``)."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    values = [nodes[spec.arg.name].meta.get("val") for spec in specs]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    names: dict[sympy.Symbol, sympy.Expr] = {}
    for tensor, captured in zip(tensors, inputs, strict=True):
        for size, name in zip(tensor.shape, captured.symbols, strict=True):
            if not isinstance(size, int) and name is not None:
                for symbol in size.node.expr.free_symbols:
                    names.setdefault(symbol, sympy.Symbol(name) * symbol / size.node.expr)
    return names


def _output_names(program: ExportedProgram) -> list[str]:
    spec = program.call_spec.out_spec
    return [] if spec is None else list(leaf_names(spec, "output"))
