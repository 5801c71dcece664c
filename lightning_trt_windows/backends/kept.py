"""Operators that stay in PyTorch although upstream has a converter: what it builds is wrong, or could not load."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

__all__ = ["kept_in_torch"]

_ACCUMULATE = 3
"""Position of the flag among the arguments of ``index_put``."""


def kept_in_torch(graph: GraphModule) -> frozenset[str]:
    """Names of the nodes in ``graph`` that no engine may hold.

    ``index_put(accumulate=True)`` is what ``index_add`` of graph networks becomes. Torch-TensorRT 2.11 converts it
    as if each index came once (wrong by 100 % on a GPU). From 2.12 on it uses a plugin of its own runtime library,
    where that is loaded, and the machine that loads the engine does not have it.
    """
    return frozenset(node.name for node in graph.graph.nodes if _adds(node))


def _adds(node: Node) -> bool:
    if node.target is not torch.ops.aten.index_put.default:
        return False
    given = node.args[_ACCUMULATE] if len(node.args) > _ACCUMULATE else node.kwargs.get("accumulate", False)
    return bool(given)
