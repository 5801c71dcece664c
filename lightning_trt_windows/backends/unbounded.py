"""What must not be given to an engine: tensors whose size depends on values and has no largest value.

An engine has a profile, with the largest size of all that it is given. Upstream makes one of 0 to 0 of a size like that
of ``repeat_interleave``'s result, and the engine takes no call. Inside of an engine such sizes are no problem, as long
as what makes them (``nonzero``) is there too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._sympy.numbers import int_oo

from lightning_trt_windows.backends.partition import engine_calls

__all__ = ["takes_unbounded"]

_REASON = (
    "it takes a tensor whose size depends on the values of another one, and an engine has to know the largest size of "
    "what it is given"
)


def takes_unbounded(parted: GraphModule) -> dict[str, str]:
    """The nodes that engines cannot have, because of what they would be given.

    Args:
        parted: The graph with its partitions.

    Returns:
        Name of the node to the reason.
    """
    found: dict[str, str] = {}
    for _, graph in engine_calls(parted):
        given = {symbol for node in graph.graph.nodes if node.op == "placeholder" for symbol in _unbounded(node)}
        for node in graph.graph.nodes:
            if node.op != "call_function":
                continue
            if any(not given.isdisjoint(_unbounded(each)) for each in (node, *node.all_input_nodes)):
                found[node.name] = _REASON
    return found


def _unbounded(node: Node) -> set[Any]:
    """Symbols in the shape of a node's tensors that values decide, and that may be as large as they like."""
    value = node.meta.get("val")
    tensors = value if isinstance(value, (list, tuple)) else (value,)
    shapes: list[Any] = [t.shape for t in tensors if isinstance(t, torch.Tensor)]
    sizes: list[Any] = [size for shape in shapes for size in shape if isinstance(size, torch.SymInt)]
    return {
        symbol
        for size in sizes
        for symbol in free_unbacked_symbols(size)
        if size.node.shape_env.var_to_range[symbol].upper == int_oo
    }
