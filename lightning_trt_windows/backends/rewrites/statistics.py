"""Mean and inverse deviation of layer and group normalisation, where the module uses them: upstream gives none."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lightning_trt_windows.backends.rewrites.insertion import Insertion, operators, value_of

__all__ = ["with_statistics"]

aten = torch.ops.aten


def with_statistics(module: GraphModule) -> None:
    """Compute the second and third result of normalisations from their input where they are used, in place."""
    changed = False
    for node in operators(module):
        if node.target not in (aten.native_layer_norm.default, aten.native_group_norm.default):
            continue
        used = [user for user in node.users if user.target is operator.getitem and user.args[1] != 0 and user.users]
        if used:
            changed = True
            mean, scale = _statistics(Insertion(module, node), node)
            for user in used:
                wanted = mean if user.args[1] == 1 else scale
                insert = Insertion(module, user)
                user.replace_all_uses_with(insert.cast(wanted, value_of(user).dtype))
                module.graph.erase_node(user)
    if changed:
        module.graph.lint()
        module.recompile()


def _statistics(insert: Insertion, node: Node) -> tuple[Node, Node]:
    x: Any = node.args[0]
    eps: Any = node.args[-1]
    x = insert.cast(x, torch.promote_types(value_of(x).dtype, torch.float32))
    keepdim = node.target is aten.native_layer_norm.default
    if keepdim:
        rank = value_of(x).dim()
        axes = list(range(rank - len(node.args[1]), rank))  # type: ignore[arg-type]
    else:
        batch, groups = value_of(node.args[0]).shape[0], node.args[6]
        if isinstance(batch, torch.SymInt):
            batch = insert(aten.sym_size.int, node.args[0], 0)
        x, axes = insert(aten.reshape.default, x, [batch, groups, -1]), [2]
    mean = insert(aten.mean.dim, x, axes, True)
    centred = insert(aten.sub.Tensor, x, mean)
    variance = insert(aten.mean.dim, insert(aten.mul.Tensor, centred, centred), axes, keepdim)
    scale = insert(
        aten.div.Tensor,
        insert(aten.scalar_tensor.default, 1.0, dtype=torch.float32),
        insert(aten.sqrt.default, insert(aten.add.Tensor, variance, eps)),
    )
    return mean if keepdim else insert(aten.mean.dim, x, axes, False), scale
