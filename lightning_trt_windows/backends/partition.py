"""Split a lowered graph into what TensorRT takes and the fallback: operators that run in PyTorch between engines.

Upstream's partitioner decides per operator; ours can also send a single node to PyTorch, because converters sometimes
fail on one use of an operator (a bilinear resize to a dynamic size) and not on the others.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis
from torch.utils._sympy.symbol import SymT, symbol_is_type

from lightning_trt_windows._compat.torch_tensorrt import Upstream
from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.backends.whole_sizes import in_whole_numbers
from lightning_trt_windows.errors import CompileError

__all__ = ["engine_calls", "partition"]

_sym_size = torch.ops.aten.sym_size.int
_read_value = torch.ops.aten._local_scalar_dense.default


def partition(blocks: Upstream, graph: GraphModule, settings: Any, kept_in_torch: Collection[str]) -> GraphModule:
    """Split ``graph``; children named ``_run_on_acc_*`` become engines, ``_run_on_gpu_*`` fall back.

    Args:
        blocks: Upstream's building blocks.
        graph: Lowered graph; it is not changed.
        settings: Upstream's ``CompilationSettings``.
        kept_in_torch: Names of nodes that TensorRT must not take.

    Returns:
        The partitioned graph.

    Raises:
        CompileError: ``require_full_compilation`` was asked for and something cannot run in TensorRT.
    """
    tester = _tester(blocks, graph, settings.torch_executed_ops, kept_in_torch)
    # fusions glue supported nodes to unsupported neighbours, which only matters where there are any
    modules = dict(graph.named_modules())
    whole = all(tester.is_node_supported(modules, n) for n in graph.graph.nodes if n.op == "call_function")
    if settings.require_full_compilation and not whole:
        unsupported = sorted(tester.unsupported_operators)
        raise CompileError(
            "require_full_compilation=True, but these operators cannot run in TensorRT: "
            f"{', '.join(unsupported)}. Leave the option out and they run in PyTorch between the engines"
        )
    parted: GraphModule = blocks.TRTPartitioner(
        graph,
        _tester(blocks, graph, settings.torch_executed_ops, kept_in_torch),
        min_block_size=settings.min_block_size,
        require_full_compilation=settings.require_full_compilation,
        skip_fusion=whole,
    ).partition_graph()
    for call, engine in engine_calls(parted):
        _drop_size_outputs(parted, call, engine)
    for call, engine in engine_calls(parted):
        _derive_size_inputs(parted, call, engine)
    parted.graph.eliminate_dead_code()
    parted.graph.lint()
    parted.recompile()
    return parted


def engine_calls(parted: GraphModule) -> Iterator[tuple[Node, GraphModule]]:
    """The calls of ``parted`` that become engines, in order, each with its graph."""
    for node in list(parted.graph.nodes):
        if node.op == "call_module" and "_run_on_acc" in node.target:
            child = getattr(parted, node.target)
            if isinstance(child, GraphModule):
                yield node, child


def _tester(
    blocks: Upstream, graph: GraphModule, torch_executed_ops: Collection[Any], kept_in_torch: Collection[str]
) -> Any:
    read = _sizes_of_values(graph)

    class Tester(blocks.OpSupportTester):  # type: ignore[misc, name-defined]  # the base is imported lazily
        def is_node_supported(self, submodules: Any, node: Node) -> bool:
            producer = node.args[0] if node.target is operator.getitem else None
            if isinstance(producer, Node) and not self.is_node_supported(submodules, producer):
                return False  # only tensors cross an engine's border, so an item stays with its tuple
            if node.name in kept_in_torch or _takes(node, read):
                self.unsupported_operators.setdefault(str(node.target), 0)
                self.unsupported_operators[str(node.target)] += 1
                return False
            return bool(super().is_node_supported(submodules, node))

    return Tester(torch_executed_ops=torch_executed_ops)


def _sizes_of_values(graph: GraphModule) -> frozenset[sympy.Symbol]:
    """Sizes that the graph reads from tensors' values, as ``int(index.max())`` does. Engines take tensors only."""
    makers = [node for node in graph.graph.nodes if node.target is _read_value]
    return frozenset(symbol for node in makers for symbol in node.meta.get("unbacked_bindings") or {})


def _takes(node: Node, symbols: Collection[sympy.Symbol]) -> bool:
    """Whether a node makes a size that is made of ``symbols``, or is given it as a number."""
    if node.target is _read_value:
        return True
    sizes = [argument.meta["val"] for argument in node.all_input_nodes if _is_size(argument)]
    return any(not size.node.expr.free_symbols.isdisjoint(symbols) for size in sizes)


# An engine takes and returns tensors only: the node that stands for it has the type Tensor[] -> Tensor[]. Where the
# split cuts a symbolic size in two (ConvNeXt, BERT), the size is computed again on each side.


def _drop_size_outputs(parent: GraphModule, call: Node, engine: GraphModule) -> None:
    """Compute sizes that ``engine`` would return in ``parent`` instead."""
    output = next(n for n in engine.graph.nodes if n.op == "output")
    single = not isinstance(output.args[0], (tuple, list))
    values = [output.args[0]] if single else list(output.args[0])
    kept = [i for i, value in enumerate(values) if not _is_size(value)]
    if len(kept) == len(values):
        return
    users = {i: [call] if single else _items(call, i) for i in range(len(values))}
    for i, value in enumerate(values):
        if i in kept:
            continue
        for user in users[i]:
            # for a single output `call` itself is the value, and its replacement must not depend on it
            size = _read_outside(parent, call, engine, value) or _size(parent, value.meta["val"], before=call)
            user.replace_all_uses_with(size)  # type: ignore[arg-type]  # a plain int replaces a node just as well
            if user is not call:
                parent.graph.erase_node(user)
    if not kept:
        parent.graph.erase_node(call)
        return
    output.args = (tuple(values[i] for i in kept),)
    for new, old in enumerate(kept):
        for item in users[old]:
            item.args = (call, new)
    engine.graph.eliminate_dead_code()
    engine.recompile()


def _read_outside(parent: GraphModule, call: Node, engine: GraphModule, value: Any) -> Node | None:
    """Read a size that ``engine`` reads of one of its inputs in ``parent``, if it is made of values."""
    inputs = [n for n in engine.graph.nodes if n.op == "placeholder"]
    symbols = value.meta["val"].node.expr.free_symbols
    of_values = any(symbol_is_type(symbol, SymT.UNBACKED_INT) for symbol in symbols)
    if not of_values or value.target is not _sym_size or value.args[0] not in inputs:
        return None
    with parent.graph.inserting_before(call):
        size = parent.graph.call_function(_sym_size, (call.args[inputs.index(value.args[0])], value.args[1]))
    size.meta["val"] = value.meta["val"]
    return size


def _derive_size_inputs(parent: GraphModule, call: Node, engine: GraphModule) -> None:
    """Compute sizes that ``engine`` would take from tensors it takes, adding one where none has that size."""
    inputs = [n for n in engine.graph.nodes if n.op == "placeholder"]
    sizes = [n for n in inputs if _is_size(n)]
    if not sizes:
        return
    # placeholders first: what replaces a size must come after every tensor it may be read from
    first = next(iter(engine.graph.nodes))
    for node in inputs:
        if node is not first:
            first.prepend(node)
    tensors = [n for n in inputs if not _is_size(n)]
    arguments = dict(zip(inputs, call.args, strict=True))
    for size in sizes:
        for symbol in sorted(size.meta["val"].node.expr.free_symbols, key=str):
            if _find(tensors, symbol) is None:
                tensors.append(_pass_in(parent, call, engine, tensors, symbol, arguments))
    body = next(n for n in engine.graph.nodes if n.op != "placeholder")
    for size in sizes:
        size.replace_all_uses_with(_size(engine, size.meta["val"], before=body, tensors=tensors))
        engine.graph.erase_node(size)
    ordered = [n for n in engine.graph.nodes if n.op == "placeholder"]
    call.args = tuple(arguments[n] for n in ordered)
    engine.graph.lint()
    engine.recompile()


def _pass_in(
    parent: GraphModule, call: Node, engine: GraphModule, tensors: list[Node], symbol: sympy.Symbol, arguments: Any
) -> Node:
    """Give ``engine`` one more tensor input, one that has ``symbol`` among its sizes."""
    found = _find(_tensors_before(parent, call), symbol)
    if found is None:
        _refuse_size_of_values(parent, symbol)
        raise CompileError(
            f"the size {symbol} crosses from PyTorch into the engine {call.target}, and no tensor before it has that "
            "size. Please report the model; until then keep the operator that makes the size in PyTorch with "
            "compile_options={'torch_executed_ops': [...]}"
        )
    with engine.graph.inserting_after(tensors[-1] if tensors else None):
        node = engine.graph.placeholder(f"size_of_{found[0].name}")
    node.meta = dict(found[0].meta)
    arguments[node] = found[0]
    return node


def _is_size(node: object) -> bool:
    return isinstance(node, Node) and isinstance(node.meta.get("val"), torch.SymInt)


def _items(call: Node, index: int) -> list[Node]:
    return [u for u in call.users if u.target is operator.getitem and u.args[1] == index]


def _tensors_before(graph: GraphModule, stop: Node) -> list[Node]:
    before: list[Node] = []
    for node in graph.graph.nodes:
        if node is stop:
            break
        if isinstance(node.meta.get("val"), torch.Tensor) and node.op != "get_attr":
            before.append(node)
    return before


def _find(tensors: list[Node], symbol: sympy.Symbol) -> tuple[Node, int, int] | None:
    """A tensor, its axis and the whole factor by which that axis is a multiple of ``symbol``."""
    for node in tensors:
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt):
                factor = sympy.sympify(size.node.expr / symbol)
                if factor.is_Integer and factor > 0:
                    return node, axis, int(factor)
    return None


def _size(graph: GraphModule, value: torch.SymInt, *, before: Node, tensors: list[Node] | None = None) -> Node | int:
    """Nodes that compute ``value`` from the sizes of tensors, inserted before ``before``."""
    expression = in_whole_numbers(value)
    if expression.is_Integer:
        return int(expression)
    candidates = _tensors_before(graph, before) if tensors is None else tensors
    tracer = torch.fx.proxy.GraphAppendingTracer(graph.graph)
    with graph.graph.inserting_before(before):
        symbols = {symbol: _symbol(graph, candidates, symbol) for symbol in expression.free_symbols}
        proxies = {symbol: torch.fx.Proxy(node, tracer) for symbol, node in symbols.items()}
        result = sympy_interp(PythonReferenceAnalysis, proxies, expression)
    node: Node = result.node
    _fill_values(node)
    return node


def _symbol(graph: GraphModule, tensors: list[Node], symbol: sympy.Symbol) -> Node:
    found = _find(tensors, symbol)
    if found is None:
        _refuse_size_of_values(graph, symbol)
        raise CompileError(
            f"the size {symbol} crosses an engine's border and no tensor has it. Please report the model"
        )
    tensor, axis, factor = found
    node = graph.graph.call_function(_sym_size, (tensor, axis))
    if factor != 1:
        node = graph.graph.call_function(operator.floordiv, (node, factor))
    _fill_values(node)
    return node


def _refuse_size_of_values(graph: GraphModule, symbol: sympy.Symbol) -> None:
    """Refuse a size that is read from a tensor's values: no shape has it, and engines take tensors only."""
    if not symbol_is_type(symbol, (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT)):
        return
    nodes = [node for module in graph.modules() if isinstance(module, GraphModule) for node in module.graph.nodes]
    makers = (node for node in nodes if symbol in (node.meta.get("unbacked_bindings") or {}))
    maker = next(makers, None)
    where = f", made by {operator_name(maker)}{model_line(maker)}" if maker is not None else ""
    raise CompileError(
        f"the size {symbol} depends on the values of a tensor{where}, and crosses an engine's border, where only "
        "tensors pass. Give forward such sizes as numbers (split points, lengths), fixed when it is exported, or leave "
        "the operators that take them to PyTorch, as compile_options={'torch_executed_ops': "
        "['torch.ops.aten.slice.Tensor']} does for a split"
    )


def _fill_values(node: Node) -> None:
    """Give new size nodes the symbolic value that later passes read from ``meta["val"]``."""
    if "val" in node.meta:
        return
    for argument in node.all_input_nodes:
        _fill_values(argument)
    value: Callable[[Any], Any] = lambda a: a.meta["val"] if isinstance(a, Node) else a  # noqa: E731 -- used once
    if node.target is _sym_size:
        tensor, axis = node.args
        node.meta["val"] = value(tensor).shape[axis]
    else:
        node.meta["val"] = node.target(*(value(a) for a in node.args))  # type: ignore[operator]
