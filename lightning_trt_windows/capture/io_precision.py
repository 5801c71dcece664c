"""``io_precision="engine"``: give a captured program the compute precision at its inputs and outputs too.

Casts to and from the module's own types go into the graph, before anything else sees it. So ranges, goldens, manifest
and engines follow without knowing of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx import Node
from torch.utils._pytree import tree_map_only

from lightning_trt_windows.artifact.shapes import InputSpec
from lightning_trt_windows.capture.program import Captured
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.modules.dtypes import REAL, dtype_of, fake_in, is_real
from lightning_trt_windows.settings import PRECISION_DTYPES, ExportSettings

__all__ = ["with_io_precision"]

_to_copy = torch.ops.aten._to_copy.default


def with_io_precision(captured: Captured, settings: ExportSettings) -> Captured:
    """``captured``, changed in place, with the inputs and outputs that ``settings`` ask for.

    An input that ``forward`` writes to is a copy of what the caller gave, as ``x = x.clone()`` in forward would be.

    Returns:
        The program with casts, and what its inputs and outputs are now.

    Raises:
        ConfigurationError: An input has values, as far as its InputSpec says, that the precision does not have.
    """
    if settings.io_precision == "module" or settings.precision is None:
        return captured
    name, dtype = PRECISION_DTYPES[settings.precision], dtype_of(settings.precision)
    for item in captured.inputs:
        _refuse_values(item.name, item.spec, dtype)
    _cast_inputs(captured.program, dtype)
    _cast_outputs(captured.program, dtype)
    captured.program.graph.lint()
    captured.program.graph_module.recompile()
    if captured.program.example_inputs is not None:
        captured.program.example_inputs = tree_map_only(
            Tensor, lambda t: t.to(dtype) if _is_cast(t, dtype) else t, captured.program.example_inputs
        )
    return replace(
        captured,
        inputs=tuple(
            replace(item, spec=replace(item.spec, dtype=name)) if item.spec.dtype in REAL else item
            for item in captured.inputs
        ),
        outputs=tuple(replace(o, dtype=name) if o.dtype in REAL else o for o in captured.outputs),
    )


def _refuse_values(name: str, spec: InputSpec, dtype: torch.dtype) -> None:
    largest = max(map(abs, spec.values)) if spec.values is not None and spec.dtype in REAL else 0.0
    if largest > torch.finfo(dtype).max:
        raise ConfigurationError(
            f"io_precision='engine': {name} has values up to {largest:g}, {str(dtype).removeprefix('torch.')} ends at "
            f"{torch.finfo(dtype).max:g}. Scale the input, take precision='bf16', or leave io_precision"
        )


def _cast_inputs(program: ExportedProgram, dtype: torch.dtype) -> None:
    graph = program.graph
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    after = list(placeholders.values())[-1:]
    for spec in program.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        value = node.meta.get("val")
        if spec.kind is not InputKind.USER_INPUT or not _is_cast(value, dtype):
            continue
        with graph.inserting_after(after[-1]):
            cast = graph.call_function(_to_copy, (node,), {"dtype": value.dtype})
        after.append(cast)
        cast.meta = {**node.meta}
        node.meta = {**node.meta, "val": fake_in(value, dtype)}
        node.meta.pop("tensor_meta", None)
        node.replace_all_uses_with(cast, delete_user_cb=lambda user, own=cast: user is not own)


def _cast_outputs(program: ExportedProgram, dtype: torch.dtype) -> None:
    graph, specs = program.graph, program.graph_signature.output_specs
    output = graph.output_node()
    values: list[Any] = list(output.args[0])
    casts: dict[Node, Node] = {}
    for index, (spec, value) in enumerate(zip(specs, values, strict=True)):
        if not isinstance(value, Node) or spec.kind is not OutputKind.USER_OUTPUT:
            continue
        known: Any = value.meta.get("val")
        if _is_cast(known, dtype):
            if value not in casts:
                with graph.inserting_before(output):
                    casts[value] = graph.call_function(_to_copy, (value,), {"dtype": dtype})
                casts[value].meta = {**value.meta, "val": fake_in(known, dtype)}
                casts[value].meta.pop("tensor_meta", None)
            value = values[index] = casts[value]
        if isinstance(known, Tensor):
            # an input that is returned as it is now comes out of a cast
            spec.arg = TensorArgument(value.name)
    output.args = (tuple(values),)


def _is_cast(value: Any, dtype: torch.dtype) -> bool:
    """Whether ``value`` is a tensor that is converted."""
    return isinstance(value, Tensor) and value.dtype != dtype and is_real(value)
