"""Floating numbers made of sizes that vary, as tensors: ``1 / x.shape[1]``, ``x.shape[1] ** -0.5``.

Torch-TensorRT divides sizes as integers, and an engine takes and returns tensors only. A number of this kind becomes a
tensor without axes, which PyTorch treats as it treats a number. What cannot become one falls back to PyTorch.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lightning_trt_windows.backends.rewrites.insertion import Insertion, operators, value_of

__all__ = ["WITH_TENSORS", "numbers_of_sizes", "with_sizes_as_tensors"]

aten = torch.ops.aten

_BINARY = {
    operator.add: aten.add.Tensor,
    operator.sub: aten.sub.Tensor,
    operator.mul: aten.mul.Tensor,
    operator.truediv: aten.div.Tensor,
    operator.pow: aten.pow.Tensor_Tensor,
    pow: aten.pow.Tensor_Tensor,
    torch.sym_max: aten.maximum.default,
    torch.sym_min: aten.minimum.default,
}
_UNARY = {
    operator.neg: aten.neg.default,
    math.sqrt: aten.sqrt.default,
    math.exp: aten.exp.default,
    math.log2: aten.log2.default,
}
for _name, _target in (
    ("_sym_sqrt", aten.sqrt.default),
    ("_sym_exp", aten.exp.default),
    ("_sym_log2", aten.log2.default),
):
    if hasattr(torch, _name):
        _UNARY[getattr(torch, _name)] = _target
_SAME = {float, torch.sym_float}

WITH_TENSORS = {
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
    aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor,
    aten.pow.Scalar: aten.pow.Tensor_Tensor,
    aten.eq.Scalar: aten.eq.Tensor,
    aten.ne.Scalar: aten.ne.Tensor,
    aten.lt.Scalar: aten.lt.Tensor,
    aten.le.Scalar: aten.le.Tensor,
    aten.gt.Scalar: aten.gt.Tensor,
    aten.ge.Scalar: aten.ge.Tensor,
    **{op: op for op in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)},
}
"""Operators that take such a number, and what they are called with a tensor in its place."""


def with_sizes_as_tensors(module: GraphModule) -> None:
    """Replace floating numbers that are made of sizes by tensors where operators take them, in place."""
    made: dict[Node, Node | None] = {}
    changed = False
    for node in operators(module):
        if node.target in (aten.full.default, aten.scalar_tensor.default):
            changed = _filled(module, node, made) or changed
        numbers = [a for a in node.args if isinstance(value_of(a), torch.SymFloat)]
        if not numbers or node.target not in WITH_TENSORS:
            continue
        tensors = {n: _as_tensor(module, n, made) for n in numbers}
        if all(tensor is not None for tensor in tensors.values()):
            node.args = tuple(tensors.get(a, a) if isinstance(a, Node) else a for a in node.args)
            node.target = WITH_TENSORS[node.target]
            changed = True
    if changed:
        module.graph.eliminate_dead_code()
        module.graph.lint()
        module.recompile()


def _filled(module: GraphModule, node: Node, made: dict[Node, Node | None]) -> bool:
    """``full(shape, number)`` as the number, expanded."""
    position = 1 if node.target is aten.full.default else 0
    number = node.args[position]
    if not isinstance(number, Node) or not isinstance(value_of(number), torch.SymFloat):
        return False
    tensor = _as_tensor(module, number, made)
    if tensor is None:
        return False
    insert = Insertion(module, node)
    result = insert.cast(tensor, value_of(node).dtype)
    if position:
        result = insert(aten.expand.default, result, node.args[0])
    node.replace_all_uses_with(result)
    return True


def numbers_of_sizes(module: GraphModule) -> frozenset[str]:
    """Names of the nodes that compute floating numbers of sizes, and of those that take them, which fall back."""
    found = set()
    for node in module.graph.nodes:
        if isinstance(value_of(node), (torch.SymFloat, torch.SymBool)):
            found.add(node.name)
            found.update(user.name for user in node.users if user.op == "call_function")
    return frozenset(found)


def _as_tensor(module: GraphModule, node: Any, made: dict[Node, Node | None]) -> Any:
    """A tensor without axes in float32 that holds ``node``, a number or a size; ``None`` where there is none."""
    if not isinstance(node, Node):
        return float(node)
    if node in made:
        return made[node]
    made[node] = None
    insert = Insertion(module, node.next)
    if isinstance(value_of(node), torch.SymInt):
        made[node] = insert(aten.scalar_tensor.default, node, dtype=torch.float32)
        return made[node]
    if node.target in _SAME:
        made[node] = _as_tensor(module, node.args[0], made)
        return made[node]
    target = _BINARY.get(node.target) or _UNARY.get(node.target)  # type: ignore[arg-type]
    if target is None:
        return None
    arguments = [_as_tensor(module, argument, made) for argument in node.args]
    if any(argument is None for argument in arguments):
        return None
    if target is not aten.pow.Tensor_Tensor:
        first = next((a for a in arguments if isinstance(a, Node)), None)
        if first is not arguments[0]:
            arguments[0] = insert(aten.scalar_tensor.default, arguments[0], dtype=torch.float32)
    elif not isinstance(arguments[1], Node):
        target = aten.pow.Tensor_Scalar
    else:
        arguments = [
            a if isinstance(a, Node) else insert(aten.scalar_tensor.default, a, dtype=torch.float32) for a in arguments
        ]
    made[node] = insert(target, *arguments)
    return made[node]
