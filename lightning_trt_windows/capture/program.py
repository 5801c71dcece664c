"""LightningModule and ranges to ExportedProgram, leaving the module as it was.

The module is traced in eval mode with ``torch.export`` (non-strict), with whatever weights it holds at that time.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves, tree_unflatten

from lightning_trt_windows._compat.modelopt import quantizers_traced
from lightning_trt_windows._compat.recurrent import recurrent_nets_kept_whole
from lightning_trt_windows._compat.torch import (
    causal_masks_not_looked_for,
    no_buffer_hook_stays,
    partial_graph_not_printed,
)
from lightning_trt_windows.artifact.manifest import OutputRecord
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec, InputTree
from lightning_trt_windows.capture.constraint_fixes import Suggestion, only_truisms, suggestions
from lightning_trt_windows.discovery.discover import call_arguments
from lightning_trt_windows.errors import CaptureError, ConfigurationError
from lightning_trt_windows.modules.containers import leaves, map_leaves, register_containers, registration_code
from lightning_trt_windows.modules.state import as_it_was, exported_part, original, state_kept
from lightning_trt_windows.progress.upstream_output import quiet

__all__ = ["STAND_IN", "Captured", "CapturedInput", "DimensionError", "capture"]


GUARDS_DEFERRED: dict[str, Any] = {"prefer_deferred_runtime_asserts_over_guards": True}
"""Let ``torch.export`` state as assertions what it cannot prove; for what is true of all sizes anyway."""


class DimensionError(CaptureError):
    """A dynamic dimension is not as free as it was declared; ``suggestions`` say what would work."""

    def __init__(self, message: str, suggestions: tuple[Suggestion, ...]) -> None:
        super().__init__(message)
        self.suggestions = suggestions


@dataclass(frozen=True)
class CapturedInput:
    """One tensor input of the program."""

    name: str
    """Dotted path of the argument: ``x``, ``batch.image``, ``pair.0``."""
    spec: InputSpec
    symbols: tuple[str | None, ...]
    """Name of each axis' size, ``None`` where it is static; equal names always have equal sizes."""


@dataclass(frozen=True)
class Captured:
    """An ExportedProgram on the CPU, and what its inputs and outputs are called."""

    program: ExportedProgram
    inputs: tuple[CapturedInput, ...]
    outputs: tuple[OutputRecord, ...]


def capture(module: nn.Module, inputs: Mapping[str, InputTree], *, method: str = "forward") -> Captured:
    """Trace ``method`` of ``module`` in eval mode.

    Args:
        module: Any module; comes back exactly as it was, also after a failure. What ``torch.compile`` wraps is traced
            in its stead.
        inputs: Argument name to ``InputSpec``, a constant, or a dict, list or tuple of these.
        method: The method to export, or a submodule (``"net.encoder"``); its own signature is the artifact's.

    Raises:
        ConfigurationError: ``inputs`` do not fit the signature of ``method``.
        CaptureError: ``torch.export`` cannot trace it; the message names the line.
    """
    module = original(module)
    owner, name = exported_part(module, method)
    owner = original(owner)
    target = owner if name == "forward" else _Method(owner, name)
    _check_arguments(target, inputs, f"{type(owner).__name__}.{name}")
    register_containers(dict(inputs))
    # traced where it is, which is on a GPU in the middle of a training
    held = next(iter([*module.parameters(), *module.buffers()]), None)
    dims = _Dims(torch.device("cpu") if held is None else held.device)
    with as_it_was(module):
        trees = {name: map_leaves(tree, dims.example, name) for name, tree in inputs.items()}
        args, kwargs = call_arguments(target.forward, trees)
        program = _export_with_its_outputs(target, args, kwargs, dims)
    captured = tuple(CapturedInput(name, spec, dims.symbols(name, spec)) for name, spec in _specs(inputs))
    return Captured(_on_cpu(program), captured, _outputs(program, captured))


def _specs(inputs: Mapping[str, InputTree]) -> list[tuple[str, InputSpec]]:
    return [(name, leaf) for name, leaf in leaves(inputs) if isinstance(leaf, InputSpec)]


STAND_IN = "module."
"""What names of tensors begin with in programs of a method other than ``forward``."""


class _Method(nn.Module):
    """Stands for a module whose ``forward`` is another of its methods; it is called ``STAND_IN`` here."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method
        self.forward = getattr(module, method)


# --- examples, dimensions and names


def _check_arguments(target: nn.Module, inputs: Mapping[str, InputTree], owner: str) -> None:
    parameters = inspect.signature(target.forward).parameters
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


def _trace_size(dim: DimRange | int) -> int:
    """The size to trace at: ``opt``, which TensorRT tunes for, but never 1, which torch.export takes for a constant."""
    if isinstance(dim, int) or dim.is_static:
        return dim if isinstance(dim, int) else dim.opt
    return max(dim.opt, 2 if dim.multiple_of == 1 else dim.multiple_of)


def _random_tensor(spec: InputSpec) -> torch.Tensor:
    shape = tuple(_trace_size(dim) for dim in spec.shape)
    dtype = getattr(torch, spec.dtype)
    low, high = spec.values if spec.values is not None else (0, 1)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.rand(shape, dtype=dtype) * (high - low) + low
    if dtype is torch.bool:
        return torch.ones(shape, dtype=dtype)
    return torch.randint(int(low), int(high) + 1, shape, dtype=dtype)


class _Dims:
    """Example tensors, and one ``torch.export.Dim`` for each name among their dimensions."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]  # torch's
        """What torch.export wants to know about the examples."""
        self._dims: dict[str, Any] = {}
        self._ranges: dict[str, DimRange] = {}

    def example(self, name: str, leaf: Any) -> Any:
        """A tensor for an ``InputSpec``; constants are their own example."""
        if not isinstance(leaf, InputSpec):
            return leaf
        tensor = _random_tensor(leaf).to(self._device)
        self.shapes[tensor] = {
            axis: self._dim(name, axis, d)
            for axis, d in enumerate(leaf.shape)
            if isinstance(d, DimRange) and not d.is_static
        }
        return tensor

    def _dim(self, leaf: str, axis: int, dim: DimRange) -> Any:
        name = self._name(leaf, axis, dim)
        known = self._ranges.setdefault(name, dim)
        if known.bounds != dim.bounds or known.multiple_of != dim.multiple_of:
            raise ConfigurationError(
                f"the dimension {name!r} is {known} in one input and {dim} in {leaf}[{axis}]; dimensions of one name "
                "have one range. Give them different names, or the same range"
            )
        if name not in self._dims:
            step = dim.multiple_of
            base = Dim(name if step == 1 else f"_{name}", min=dim.min // step, max=dim.max // step)
            self._dims[name] = base if step == 1 else step * base
        return self._dims[name]

    @staticmethod
    def _name(leaf: str, axis: int, dim: DimRange) -> str:
        return re.sub(r"\W", "_", dim.name or f"{leaf}_{axis}")

    def translated(self, suggestion: Suggestion) -> Suggestion:
        """``suggestion`` in sizes: of a dimension in steps, torch.export only knows the number of steps."""
        dim = self._ranges.get(suggestion.symbol.removeprefix("_"))
        if dim is None or suggestion.symbol in self._ranges:
            return suggestion
        return suggestion.scaled(dim.multiple_of, suggestion.symbol.removeprefix("_"))

    def symbols(self, leaf: str, spec: InputSpec) -> tuple[str | None, ...]:
        """The names of the axes of ``spec``."""
        return tuple(
            self._name(leaf, axis, d) if isinstance(d, DimRange) and not d.is_static else None
            for axis, d in enumerate(spec.shape)
        )


# --- torch.export and its failures


def _export_with_its_outputs(
    target: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: _Dims
) -> ExportedProgram:
    """Trace, with the classes of the outputs made known to ``torch.export``: for the trace, or for saving at least."""
    try:
        program = _export(target, args, kwargs, dims)
    except DimensionError:
        raise
    except CaptureError as error:
        result = _run_eagerly(target, args, kwargs)
        if not register_containers(result):
            _explain_unknown_classes(result, error)
            raise
        program = _export(target, args, kwargs, dims)
    spec = program.call_spec.out_spec
    if spec is not None:
        # a NamedTuple can be traced and not saved
        register_containers(tree_unflatten([None] * spec.num_leaves, spec))
    return program


def _run_eagerly(target: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``target`` returns for the examples; ``None`` where it fails, which the trace tells better."""
    try:
        with state_kept(target), torch.compiler.set_stance("force_eager"):
            return target(*args, **kwargs)
    except Exception:
        return None


def _explain_unknown_classes(result: Any, error: CaptureError) -> None:
    """Add to ``error`` what to write for a class among the outputs that nobody can take apart."""
    plain = (torch.Tensor, str, bytes, int, float, complex, type(None))
    unknown = {type(leaf): name for name, leaf in leaves({"output": result}) if not isinstance(leaf, plain)}
    for cls, name in unknown.items():
        error.args = (
            f"{error.args[0]}\n{name} is a {cls.__name__}, which PyTorch cannot take apart. Return a tuple, a dict or "
            f"a dataclass of tensors, or say how before the export:\n{registration_code(cls)}",
        )


def _export(target: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: _Dims) -> ExportedProgram:
    owner = type(target.module if isinstance(target, _Method) else target).__name__
    options: dict[str, Any] = {"dynamic_shapes": dims.shapes, "strict": False}
    try:
        with (
            quiet(),
            partial_graph_not_printed(),
            causal_masks_not_looked_for(),
            quantizers_traced(),
            recurrent_nets_kept_whole(),
            no_buffer_hook_stays(),
        ):
            try:
                return torch.export.export(target, args, kwargs, **options)
            except Exception as error:
                if not only_truisms(str(error)):
                    raise
                return torch.export.export(target, args, kwargs, **options, **GUARDS_DEFERRED)
    # tracing runs the user's forward, which can raise anything
    except Exception as error:
        message = (
            f"torch.export could not trace {owner}.{getattr(target, 'method', 'forward')}"
            f"{_line_in_model(error)}: {_first_lines(error)}"
        )
        if found := suggestions(str(error)):
            raise DimensionError(message, tuple(map(dims.translated, found))) from error
        raise CaptureError(message) from error


def _line_in_model(error: BaseException) -> str:
    """`` at model.py:12 (if x.sum() > 0:)``: the innermost line that is neither torch's nor ours."""
    text = str(error)
    quoted = re.findall(r'File "([^"]+)", line (\d+), in \S+\s*\n\s*([^\n]+)', text)
    frames = [(f.filename, str(f.lineno), f.line or "") for f in traceback.extract_tb(error.__traceback__)]
    ours = __file__.rsplit("/", 2)[0]
    for file, number, line in [*reversed(frames), *reversed(quoted)]:
        inside = "/torch/" in file or file.startswith((ours, "<"))
        if not inside:
            return f" at {file.rsplit('/', 1)[-1]}:{number} ({line.strip()})"
    return ""


def _first_lines(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    kept = lines[:1]
    suggested = next((i for i, line in enumerate(lines) if line.startswith("Suggested fixes")), None)
    if suggested is not None:
        kept += [line for line in lines[suggested:] if line.startswith(("Suggested", " "))]
    return f"{type(error).__name__}: " + "\n".join(kept)


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
    if spec is None:
        return []
    return [name for name, _ in leaves({"output": tree_unflatten(list(range(spec.num_leaves)), spec)})]
