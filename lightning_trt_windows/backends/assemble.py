"""Put engines and the fallback operators together into one ExportedProgram.

Each engine is a ``tensorrt::no_op_placeholder_for_execute_engine`` node, as upstream writes and reads them, with a
short token where the payload belongs: the payload joins when the archive is written, and never sits in the graph,
where upstream prints, compiles and encodes it again and again.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    SymIntArgument,
    TensorArgument,
)
from torch.export.unflatten import _assign_attr, _AttrKind
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._pytree import tree_leaves

from lightning_trt_windows._compat.torch_tensorrt import EngineFields, Upstream
from lightning_trt_windows.backends.nodes import model_line
from lightning_trt_windows.backends.partition import engine_calls

__all__ = ["assemble", "inline_modules", "take_lines"]


def assemble(
    blocks: Upstream, source: ExportedProgram, parted: GraphModule, fields: Mapping[str, EngineFields]
) -> ExportedProgram:
    """Make the program that is saved: ``parted`` with engine nodes, under the calling convention of ``source``.

    Args:
        blocks: Upstream's building blocks.
        source: The captured program; gives the input and output structure and the ranges.
        parted: The partitioned graph; consumed.
        fields: Record of each engine, by the name of its partition.

    Returns:
        The program, which upstream's loader reads too.
    """
    for call, graph in engine_calls(parted):
        _insert_engine(blocks, parted, call, _output_values(graph), fields[call.target])  # type: ignore[index]
    inline_modules(parted)
    parted.delete_all_unused_submodules()
    parted.graph.eliminate_dead_code()
    parted.graph.lint()
    return _as_program(parted, source)


def take_lines(program: ExportedProgram) -> dict[str, str]:
    """Take the lines of the model out of the nodes of ``program``, which is saved without.

    They name files of the machine that exported: of no use to the reader, and none of its business.

    Returns:
        The line of each node that has one, as messages say it, by the node's name.
    """
    lines = {}
    for node in program.graph.nodes:
        lines[node.name] = model_line(node)
        node.meta.pop("stack_trace", None)
    return {name: line for name, line in lines.items() if line}


def _output_values(graph: GraphModule) -> list[Any]:
    output = next(n for n in graph.graph.nodes if n.op == "output")
    values = output.args[0] if isinstance(output.args[0], (tuple, list)) else (output.args[0],)
    return [value.meta["val"] for value in values]


def _insert_engine(blocks: Upstream, parted: GraphModule, call: Node, values: list[Any], fields: EngineFields) -> None:
    graph = parted.graph
    with graph.inserting_before(call):
        node = graph.call_function(blocks.no_op, (list(call.args), *fields.as_arguments(blocks)))
    node.meta["val"] = values
    items = [user for user in call.users if user.target is operator.getitem]
    if items:
        for item in items:
            item.meta["val"] = values[item.args[1]]  # type: ignore[index]
        call.replace_all_uses_with(node)
    else:
        with graph.inserting_after(node):
            item = graph.call_function(operator.getitem, (node, 0))
        item.meta["val"] = values[0]
        call.replace_all_uses_with(item)
    graph.erase_node(call)


def _as_program(graph_module: GraphModule, source: ExportedProgram) -> ExportedProgram:
    graph = graph_module.graph
    inputs = [
        InputSpec(InputKind.USER_INPUT, _argument(node), None) for node in graph.nodes if node.op == "placeholder"
    ]
    ranges = _ranges(graph_module, source)
    lifted, state = _lift(graph_module)
    output = next(n for n in graph.nodes if n.op == "output")
    values = list(output.args[0]) if isinstance(output.args[0], (tuple, list)) else [output.args[0]]
    output.args = (tuple(values),)
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, _argument(value), None) for value in values]
    call_spec = source.call_spec
    signature = ModuleCallSignature(inputs=[], outputs=[], in_spec=call_spec.in_spec, out_spec=call_spec.out_spec)
    # the graph of an ExportedProgram takes and returns flat tuples
    graph.set_codegen(torch.fx.graph.CodeGen())
    graph_module.recompile()
    return ExportedProgram(
        root=graph_module,
        graph=graph,
        graph_signature=ExportGraphSignature([*lifted, *inputs], outputs),
        state_dict=state,
        range_constraints=ranges,
        module_call_graph=[ModuleCallEntry("", signature)],
        constants={},
    )


def _argument(value: object) -> Any:
    if not isinstance(value, Node):
        return ConstantArgument(name="", value=value)  # type: ignore[arg-type]  # None, numbers and strings
    known = value.meta["val"]
    if isinstance(known, torch.SymInt):
        return SymIntArgument(name=value.name)
    if isinstance(known, torch.Tensor):
        return TensorArgument(name=value.name)
    # an argument that is no tensor was fixed when the program was captured
    return ConstantArgument(name=value.name, value=known)


def _ranges(graph_module: GraphModule, source: ExportedProgram) -> dict[Any, Any]:
    """The ranges of the source program, and those of data-dependent sizes, which no input has.

    Lowering re-propagates shapes and would give back [2, N] for [1, N]: a size of 1 is special to PyTorch's tracer and
    not to the engine. A program without the range of a data-dependent size does not load.
    """
    ranges = {symbol: bounds for symbol, bounds in source.range_constraints.items() if symbol.is_Symbol}
    for node in graph_module.graph.nodes:
        for value in tree_leaves(node.meta.get("val")):
            if not isinstance(value, (torch.Tensor, torch.SymInt)):
                continue
            for symbol in free_unbacked_symbols(value):
                ranges.setdefault(symbol, _shape_environment(value).var_to_range[symbol])
    return ranges


def _shape_environment(value: Any) -> Any:
    return value.node.shape_env if isinstance(value, torch.SymInt) else value.fake_mode.shape_env


def _lift(graph_module: GraphModule) -> tuple[list[InputSpec], dict[str, torch.Tensor]]:
    """Turn the weights of the fallback operators into inputs of the graph, as ``torch.export`` keeps them."""
    graph = graph_module.graph
    first = next(iter(graph.nodes))
    placeholders: dict[str, Node] = {}
    specs: list[InputSpec] = []
    state: dict[str, torch.Tensor] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        if node.target not in placeholders:
            value = _attribute(graph_module, node.target)
            with graph.inserting_before(first):
                new = graph.placeholder(node.target.replace(".", "_"))
            # two attributes whose names differ by a dot only would share an argument
            new.target = new.name
            new.meta = dict(node.meta)
            if "val" not in new.meta:
                new.meta["val"] = _fake_like(graph_module, value)
            parameter = isinstance(value, torch.nn.Parameter)
            kind = InputKind.PARAMETER if parameter else InputKind.BUFFER
            specs.append(InputSpec(kind, TensorArgument(new.name), node.target, None if parameter else True))
            state[node.target] = value.detach() if not parameter else torch.nn.Parameter(value.detach(), False)
            placeholders[node.target] = new
        node.replace_all_uses_with(placeholders[node.target])
        graph.erase_node(node)
    return specs, state


def _attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value  # type: ignore[no-any-return]


def _fake_like(graph_module: GraphModule, value: torch.Tensor) -> torch.Tensor:
    for node in graph_module.graph.nodes:
        for leaf in tree_leaves(node.meta.get("val")):
            if isinstance(leaf, torch._subclasses.FakeTensor):
                return leaf.fake_mode.from_tensor(value, static_shapes=True)
    return value.to("meta")


def inline_modules(parted: GraphModule) -> None:
    """Replace every call of a submodule in ``parted`` by the submodule's own nodes; its weights come along."""
    graph = parted.graph
    for call in [node for node in graph.nodes if node.op == "call_module"]:
        inner = parted.get_submodule(str(call.target))
        assert isinstance(inner, GraphModule), "partitions are graphs"
        placeholders = [node for node in inner.graph.nodes if node.op == "placeholder"]
        copies: dict[Node, Any] = dict(zip(placeholders, call.args, strict=True))
        with graph.inserting_before(call):
            result: Any = graph.graph_copy(inner.graph, copies)
        for node in inner.graph.nodes:
            if node.op == "get_attr":
                _carry(inner, parted, str(node.target))
        if isinstance(result, (tuple, list)):
            for item in [user for user in call.users if user.target is operator.getitem]:
                item.replace_all_uses_with(result[item.args[1]])
                graph.erase_node(item)
        else:
            call.replace_all_uses_with(result)
        graph.erase_node(call)


def _carry(inner: GraphModule, parted: GraphModule, path: str) -> None:
    """Give ``parted`` what ``inner`` has at ``path``; equal paths are one tensor, those of the lowered program."""
    value: Any = inner
    for part in path.split("."):
        value = getattr(value, part)
    if isinstance(value, nn.Parameter):
        kind = _AttrKind.PARAMETER
    else:
        kind = _AttrKind.BUFFER if isinstance(value, Tensor) else _AttrKind.CONSTANT
    _assign_attr(value, parted, path, kind)
