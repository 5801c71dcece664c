"""Nodes that no engine holds: of float64, complex and random numbers, numbers made of sizes, pairs of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_iter

from lightning_trt_windows._compat.recurrent import RECURRENT_OPERATORS
from lightning_trt_windows.backends.rewrites.sizes import numbers_of_sizes

__all__ = ["draws_random_numbers", "of_types_without_engines"]

_DROPOUT = 4
"""Position of the probability among the arguments of attention."""


def of_types_without_engines(module: GraphModule, *, takes_double: bool) -> frozenset[str]:
    """Names of the nodes in ``module`` that fall back to PyTorch for what they take or give.

    Args:
        module: A lowered graph.
        takes_double: Engines compute what is in float64 in float32, as was asked for.

    Returns:
        The names.
    """
    names = set(numbers_of_sizes(module))
    for node in module.graph.nodes:
        if node.op == "call_function":
            dtypes = {value.dtype for value in _tensors([node, *node.all_input_nodes])}
            if draws_random_numbers(node) or _power_of_integers(node) or _pairs_of_rows(node):
                names.add(node.name)
            if any(dtype.is_complex for dtype in dtypes) or (torch.float64 in dtypes and not takes_double):
                names.add(node.name)
    return frozenset(names)


def draws_random_numbers(node: Node) -> bool:
    """Whether ``node`` gives something else each time: an engine would hold the numbers of its build."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target is torch.ops.aten.scaled_dot_product_attention.default:
        probability = node.args[_DROPOUT] if len(node.args) > _DROPOUT else node.kwargs.get("dropout_p", 0.0)
        return bool(probability)
    if target in RECURRENT_OPERATORS:
        dropout, train = node.args[5:7]
        return bool(dropout and train)
    return torch.Tag.nondeterministic_seeded in target.tags


def _power_of_integers(node: Node) -> bool:
    """TensorRT has powers of floating numbers only, which lose digits of large integers."""
    value = node.meta.get("val")
    power = isinstance(node.target, torch._ops.OpOverload) and node.target.overloadpacket is torch.ops.aten.pow
    return power and isinstance(value, Tensor) and not value.is_floating_point()


def _pairs_of_rows(node: Node) -> bool:
    """Upstream collects distances of pairs in a loop, which cannot give nothing, as of one row."""
    if node.target is not torch.ops.aten._pdist_forward.default:
        return False
    value = node.args[0].meta.get("val") if isinstance(node.args[0], Node) else None
    return isinstance(value, Tensor) and (isinstance(value.shape[0], torch.SymInt) or value.shape[0] < 2)


def _tensors(nodes: list[Node]) -> Iterator[Any]:
    for node in nodes:
        for value in tree_iter(node.meta.get("val")):
            if isinstance(value, Tensor):
                yield value
