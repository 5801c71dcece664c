"""New nodes in a lowered graph, with the values in ``meta`` that partitioning and conversion read."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.passes.shape_prop import _extract_tensor_metadata
from torch.utils._pytree import tree_iter, tree_map

__all__ = ["Insertion", "constant_of", "operators", "set_value", "value_of"]


class Insertion:
    """Nodes that are inserted into ``module`` before ``place``, with the place's line of the model."""

    def __init__(self, module: GraphModule, place: Node) -> None:
        self.module, self.place = module, place

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A node that calls ``target``, its value computed of those of its arguments."""
        graph = self.module.graph
        with graph.inserting_before(self.place):
            node = graph.call_function(target, args, kwargs)
        values = tree_map(_value, (args, kwargs))
        mode = next((v.fake_mode for v in tree_iter(values) if hasattr(v, "fake_mode")), None) or fake_mode(self.module)
        with mode:
            set_value(node, target(*values[0], **values[1]))
        for key in ("stack_trace", "nn_module_stack"):
            if key in self.place.meta:
                node.meta[key] = self.place.meta[key]
        return node

    def cast(self, node: Node, dtype: torch.dtype) -> Node:
        """``node`` in another type; the node itself where it has that type."""
        if value_of(node).dtype == dtype:
            return node
        return self(torch.ops.aten._to_copy.default, node, dtype=dtype)


def set_value(node: Node, value: Any) -> None:
    """Note what ``node`` gives, as tracing does."""
    node.meta["val"] = value
    if isinstance(value, Tensor):
        node.meta["tensor_meta"] = _extract_tensor_metadata(value)
    else:
        node.meta.pop("tensor_meta", None)


def fake_mode(module: GraphModule) -> Any:
    """The mode that the values of ``module`` were made in."""
    for node in module.graph.nodes:
        for value in tree_iter(node.meta.get("val")):
            if hasattr(value, "fake_mode"):
                return value.fake_mode
    return torch._subclasses.FakeTensorMode()


def operators(module: GraphModule) -> Iterator[Node]:
    """The calls of operators in ``module``, in order, while the graph is being changed."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            yield node


def value_of(node: Any) -> Any:
    """What a node gave when it was traced; anything else is its own value."""
    return node.meta.get("val") if isinstance(node, Node) else node


def _value(argument: Any) -> Any:
    return argument.meta["val"] if isinstance(argument, Node) else argument


def constant_of(module: GraphModule, node: Node) -> Tensor | None:
    """The tensor that ``node`` fetches from ``module``, if it does."""
    if node.op != "get_attr":
        return None
    value = operator.attrgetter(str(node.target))(module)
    return value if isinstance(value, Tensor) else None
