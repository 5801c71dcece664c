"""What stays in PyTorch goes from its partitions back into the graph.

Upstream's own function of this kind took arguments for nodes of the same name before 2.14: a size could become another
size, or an engine's result one more input of the program, without an error. This one goes by position.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, nn
from torch.export.unflatten import _assign_attr, _AttrKind
from torch.fx import GraphModule, Node

__all__ = ["inline_modules"]


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
