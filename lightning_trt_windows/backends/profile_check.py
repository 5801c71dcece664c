"""Whether an engine takes every size that reaches it: shapes of its inputs against its optimization profile.

Profiles are made of what tracing says about sizes, and only TensorRT's runtime compares them with real ones: a profile
that starts too high or ends too low builds, and the engine then takes no call, on the user's machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.backends.profiles import Ranges
from lightning_trt_windows.errors import CompileError

__all__ = ["OutsideProfileError", "check_profile", "check_promised_sizes", "outside_of_profile"]

_Shape = Sequence["int | None"]
"""Sizes, ``None`` where they are not known."""


class OutsideProfileError(Exception):
    """An engine would be given sizes that values decide and that its profile does not hold.

    The caller leaves the nodes that work on them to PyTorch, and partitions again.
    """

    def __init__(self, nodes: Sequence[Node], why: str) -> None:
        super().__init__(why)
        self.nodes = tuple(nodes)


def outside_of_profile(interpreter: Any, shapes: Sequence[_Shape]) -> tuple[int, str] | None:
    """Compare shapes with what an engine's profile takes.

    Args:
        interpreter: Upstream's, after it has made the network.
        shapes: One of each input, in order.

    Returns:
        Number of the first input that would be refused, and both shapes in words; ``None`` where all are taken.
    """
    inputs = {
        tensor.name: tensor for tensor in map(interpreter.ctx.net.get_input, range(interpreter.ctx.net.num_inputs))
    }
    for number, (name, shape) in enumerate(zip(interpreter._input_names, shapes, strict=True)):
        declared = tuple(inputs[name].shape)
        lowest, highest = declared, declared
        if -1 in declared:
            smallest, _, largest = interpreter.optimization_profiles[0].get_shape(name)
            lowest, highest = tuple(smallest), tuple(largest)
        fits = len(shape) == len(lowest) and all(
            size is None or low <= size <= high for size, low, high in zip(shape, lowest, highest)
        )
        if not fits:
            taken = _in_words(lowest) + (f" to {_in_words(highest)}" if highest != lowest else " only")
            return number, f"of the shape {_in_words(shape)}, and the engine's optimization profile takes {taken}"
    return None


def check_profile(name: str, graph: GraphModule, interpreter: Any, shapes: Sequence[_Shape], at: str) -> None:
    """Refuse an engine that would refuse ``shapes``.

    Args:
        name: Name of the engine.
        graph: Its partition.
        interpreter: Upstream's, after it has made the network.
        shapes: One of each input, in order.
        at: The sizes of the program's inputs at which these shapes reach the engine, in words.

    Raises:
        OutsideProfileError: What is outside depends on values: PyTorch can have what works on it.
        CompileError: What is outside follows from the sizes of the inputs.
    """
    found = outside_of_profile(interpreter, shapes)
    if found is None:
        return
    number, outside = found
    given = [node for node in graph.graph.nodes if node.op == "placeholder"][number]
    why = f"at {at} it is given a tensor {outside}"
    symbols = _of_values(given)
    working = [node for node in graph.graph.nodes if node.op == "call_function" and _has(node, symbols)]
    if working:
        raise OutsideProfileError(working, why)
    first = next((node for node in given.users if node.op == "call_function"), None)
    user = "" if first is None else f", which {operator_name(first)}{model_line(first)} takes"
    raise CompileError(
        f"the engine {name} would refuse sizes that this export promises: {why}{user}. Fix the size that varies (a "
        "number in its InputSpec), or leave that operator to PyTorch with compile_options={'torch_executed_ops': [...]}"
    )


def check_promised_sizes(name: str, graph: GraphModule, interpreter: Any, ranges: Ranges) -> None:
    """Compare the profile of an engine with the shapes of its inputs at the smallest and the largest sizes promised.

    This costs nothing, and so it is done where nothing else is checked as well.

    Args:
        name: Name of the engine.
        graph: Its partition; its placeholders' metadata hold symbolic shapes.
        interpreter: Upstream's, after it has made the network.
        ranges: Of the symbols, as they were captured.

    Raises:
        CompileError: The engine would refuse one of them.
    """
    for which, bounds in (("smallest", "lower"), ("largest", "upper")):
        numbers = {symbol: getattr(found, bounds) for symbol, found in ranges.items()}
        sizes = {
            symbol: sympy.Integer(n) for symbol, n in numbers.items() if getattr(n, "is_Integer", isinstance(n, int))
        }
        check_profile(name, graph, interpreter, list(_shapes(graph, sizes)), f"the {which} sizes")


def _shapes(graph: GraphModule, sizes: dict[Any, Any]) -> Iterator[_Shape]:
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            yield [_number(size, sizes) for size in node.meta["val"].shape]


def _number(size: int | torch.SymInt, sizes: dict[Any, Any]) -> int | None:
    if isinstance(size, int):
        return size
    number = size.node.expr.xreplace(sizes)
    # all symbols at one end at once need not be possible, and then the size may come out as anything
    return int(number) if number.is_Integer and number >= 0 else None


def _of_values(node: Node) -> set[Any]:
    return {symbol for size in node.meta["val"].shape for symbol in free_unbacked_symbols(size)}


def _has(node: Node, symbols: set[Any]) -> bool:
    """Whether a node gives or takes a tensor that has ``symbols`` among its sizes."""
    for each in (node, *node.all_input_nodes):
        value = each.meta.get("val")
        tensors = value if isinstance(value, (list, tuple)) else (value,)
        found = (
            s for t in tensors if isinstance(t, torch.Tensor) for size in t.shape for s in free_unbacked_symbols(size)
        )
        if not symbols.isdisjoint(found):
            return True
    return False


def _in_words(shape: _Shape) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
