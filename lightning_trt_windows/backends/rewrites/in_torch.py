"""Nodes of types and values that no engine holds: float64, complex numbers, floating numbers made of sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_iter

from lightning_trt_windows.backends.rewrites.sizes import numbers_of_sizes

__all__ = ["of_types_without_engines"]


def of_types_without_engines(module: GraphModule, *, takes_double: bool) -> frozenset[str]:
    """Names of the nodes in ``module`` that stay in PyTorch for the types that they take or give.

    Args:
        module: A lowered graph.
        takes_double: Engines compute what is in float64 in float32, as was asked for.
    """
    names = set(numbers_of_sizes(module))
    for node in module.graph.nodes:
        if node.op == "call_function":
            dtypes = {value.dtype for value in _tensors([node, *node.all_input_nodes])}
            if any(dtype.is_complex for dtype in dtypes) or (torch.float64 in dtypes and not takes_double):
                names.add(node.name)
    return frozenset(names)


def _tensors(nodes: list[Node]) -> Iterator[Any]:
    for node in nodes:
        for value in tree_iter(node.meta.get("val")):
            if isinstance(value, Tensor):
                yield value
