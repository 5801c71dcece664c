"""Indices that may be negative when the program runs: counted from the end, as PyTorch does.

Upstream flattens the axes that are indexed and adds the indices up, so that -1 is the last row of the element before.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from lightning_trt_windows.backends.rewrites.insertion import Insertion, constant_of, operators, value_of

__all__ = ["with_indices_from_the_start"]

aten = torch.ops.aten

_NEVER_NEGATIVE = {aten.argmax, aten.argmin, aten.nonzero, aten.bitwise_and}
_KEEP_SIGN = {
    aten.view,
    aten.reshape,
    aten._reshape_copy,
    aten.unsqueeze,
    aten.squeeze,
    aten.expand,
    aten.permute,
    aten.transpose,
    aten.clone,
    aten._to_copy,
    aten.slice,
    aten.select,
    aten.index_select,
    aten.index,
    aten.repeat,
    aten.flip,
    aten.split,
}
_INDEXED = {aten.index.Tensor, aten.index_put.default}


def with_indices_from_the_start(module: GraphModule) -> None:
    """Add the axis's size to negative indices of ``index`` and ``index_put``, in place."""
    changed = False
    for node in operators(module):
        if node.target is aten.select.int:
            changed = _selected_from_the_start(module, node) or changed
            continue
        if node.target not in _INDEXED:
            continue
        source, indices = value_of(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
        axis = 0
        computed = _counted_with_a_size_that_varies(module, source, indices)
        insert = Insertion(module, node)
        for position, index in enumerate(indices):
            value = value_of(index)
            if isinstance(value, Tensor) and value.dtype is torch.bool:
                axis += value.dim()
                continue
            if isinstance(value, Tensor) and (computed or not _not_negative(module, index)):
                indices[position] = _from_the_start(insert, node.args[0], source, index, axis)
                changed = True
            axis += 1
        if changed:
            node.args = (node.args[0], indices, *node.args[2:])
    if changed:
        module.graph.lint()
        module.recompile()


def _counted_with_a_size_that_varies(module: GraphModule, source: Tensor, indices: list[Any]) -> bool:
    """Whether several constant indices meet axes that vary: upstream then counts with -1 for the size of such an axis.

    An index that is computed, be it by a comparison with 0, has it read the size when the engine runs.
    """
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    constant = all(isinstance(index, Node) and constant_of(module, index) is not None for _, index in given)
    return len(given) > 1 and constant and any(isinstance(source.shape[axis], torch.SymInt) for axis, _ in given)


def _selected_from_the_start(module: GraphModule, node: Node) -> bool:
    """``x[:, -1]``: NVIDIA leaves open what a negative index on an axis of varying size means."""
    source, dim, index = node.args[0], node.args[1], node.args[2]
    if not isinstance(index, int) or index >= 0:
        return False
    size = value_of(source).shape[dim]
    if isinstance(size, int):
        node.args = (source, dim, index + size)
        return True
    insert = Insertion(module, node)
    place = insert(operator.add, insert(aten.sym_size.int, source, dim), index)
    node.args = (source, dim, place)
    return True


def _from_the_start(insert: Insertion, source_node: Any, source: Tensor, index: Node, axis: int) -> Node:
    size = source.shape[axis]
    if isinstance(size, torch.SymInt):
        size = insert(aten.sym_size.int, source_node, axis)
    negative = insert(aten.lt.Scalar, index, 0)
    return insert(aten.where.self, negative, insert(aten.add.Tensor, index, size), index)


def _not_negative(module: GraphModule, node: Any) -> bool:
    if not isinstance(node, Node):
        return True
    constant = constant_of(module, node)
    if constant is not None:
        return constant.numel() == 0 or bool((constant >= 0).all())
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    packet = node.target.overloadpacket
    if packet in _NEVER_NEGATIVE:
        return True
    if node.target is aten.arange.start_step:
        start, step = node.args[0], node.args[2] if len(node.args) > 2 else 1
        return isinstance(start, (int, float)) and start >= 0 and isinstance(step, (int, float)) and step > 0
    if packet in _KEEP_SIGN:
        return _not_negative(module, node.args[0])
    if packet is aten.clamp:
        return len(node.args) > 1 and isinstance(node.args[1], (int, float)) and node.args[1] >= 0
    if packet in (aten.add, aten.mul):
        return all(_not_negative(module, a) if isinstance(a, Node) else _is_size(a) for a in node.args[:2])
    if packet is aten.where:
        return all(_not_negative(module, a) for a in node.args[1:3])
    return False


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 0
