"""Attention that TensorRT's layer takes, and takes right: masks in place of ``is_causal``, four axes.

PyTorch aligns a causal mask with the first query and the first key, TensorRT with the last ones. With as many queries
as keys they agree, and the layer's own mask is kept, which is fastest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from lightning_trt_windows.backends.rewrites.insertion import Insertion, operators, set_value, value_of

__all__ = ["with_attention_as_captured"]

aten = torch.ops.aten
_MASK, _DROPOUT, _CAUSAL = 3, 4, 5
_AXES = 4
"""Batch, heads, positions and features."""


def with_attention_as_captured(module: GraphModule) -> None:
    """Rewrite the attention nodes of ``module`` in place."""
    changed = False
    for node in operators(module):
        if node.target is aten.scaled_dot_product_attention.default:
            changed = _explicit_mask(module, node) or changed
            changed = _four_axes(module, node) or changed
    if changed:
        module.graph.lint()
        module.recompile()


def _explicit_mask(module: GraphModule, node: Node) -> bool:
    arguments: dict[str, Any] = dict(node.kwargs)
    is_causal = arguments.get("is_causal", node.args[_CAUSAL] if len(node.args) > _CAUSAL else False)
    query, key = value_of(node.args[0]), value_of(node.args[1])
    queries, keys = query.shape[-2], key.shape[-2]
    if not is_causal or _same(queries, keys):
        return False
    insert = Insertion(module, node)
    rows, columns = (
        insert(aten.arange.start_step, 0, _size(insert, argument, size), 1, dtype=torch.int64, device=query.device)
        for argument, size in ((node.args[0], queries), (node.args[1], keys))
    )
    mask = insert(aten.ge.Tensor, insert(aten.unsqueeze.default, rows, 1), insert(aten.unsqueeze.default, columns, 0))
    arguments.pop("is_causal", None)
    node.args = (*node.args[:_MASK], mask, 0.0, False)
    node.kwargs = {k: v for k, v in arguments.items() if k not in ("attn_mask", "dropout_p")}
    return True


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.SymInt) and isinstance(b, torch.SymInt):
        return bool(a.node.expr == b.node.expr)
    return isinstance(a, int) and isinstance(b, int) and a == b


def _size(insert: Insertion, node: Any, size: Any) -> Any:
    return size if isinstance(size, int) else insert(aten.sym_size.int, node, value_of(node).dim() - 2)


def _four_axes(module: GraphModule, node: Node) -> bool:
    values = [value_of(argument) for argument in node.args[:_MASK]]
    ranks = {value.dim() for value in values}
    if len(ranks) != 1 or not 2 <= (rank := ranks.pop()) < _AXES:
        return False
    insert = Insertion(module, node)

    def lifted(argument: Any) -> Any:
        if not isinstance(argument, Node):
            return argument
        # what stands before the positions is a batch, with one head
        before = value_of(argument).dim()
        result = insert(aten.unsqueeze.default, argument, max(before - 2, 0))
        for _ in range(_AXES - 1 - before):
            result = insert(aten.unsqueeze.default, result, 0)
        return result

    mask = node.args[_MASK] if len(node.args) > _MASK else node.kwargs.get("attn_mask")
    rest = node.args[_DROPOUT:]
    old = value_of(node)
    node.args = (*(lifted(a) for a in node.args[:_MASK]), lifted(mask), *rest)
    node.kwargs = {k: v for k, v in node.kwargs.items() if k != "attn_mask"}
    users = list(node.users)
    # its own value has four axes now, and what used it takes the one that it had
    after = Insertion(module, node.next)
    with old.fake_mode:
        four = old.unsqueeze(max(rank - 2, 0))
        for _ in range(_AXES - 1 - rank):
            four = four.unsqueeze(0)
    set_value(node, four)
    result: Node = node
    for _ in range(_AXES - 1 - rank):
        result = after(aten.squeeze.dim, result, 0)
    result = after(aten.squeeze.dim, result, max(rank - 2, 0))
    for user in users:
        user.replace_input_with(node, result)
    return True
