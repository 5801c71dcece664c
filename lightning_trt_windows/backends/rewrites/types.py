"""Casts where PyTorch promotes types, which Torch-TensorRT does by rules of its own.

There an integer tensor that meets a Python number computes in integers (``arange(n) + 0.5`` adds 0), a quotient of
integers is an integer, and two int64 tensors are chosen from in int32. Each operator gets its inputs in the type that
PyTorch computes in, which the traced values show.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from lightning_trt_windows.backends.rewrites.insertion import Insertion, operators, value_of
from lightning_trt_windows.backends.rewrites.sizes import WITH_TENSORS

__all__ = ["with_promoted_types"]

aten = torch.ops.aten

_MOST = 2**31
_COMPARISONS = {aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge}
_LOGICAL = {aten.logical_and, aten.logical_or, aten.logical_xor, aten.logical_not, aten.isnan, aten.isinf}
_SUMS = {aten.sum, aten.prod, aten.cumsum, aten.cumprod, aten.mean, aten.linalg_vector_norm}
_JOINED = {aten.cat}
_CONDITION = {aten.where}


def with_promoted_types(module: GraphModule) -> None:
    """Give the operators of ``module`` their inputs in the types that PyTorch computes in, in place."""
    for node in operators(module):
        _large_numbers(module, node)
        if (dtype := _computed_in(node)) is not None:
            _cast_inputs(module, node, dtype)
    module.graph.lint()
    module.recompile()


def _computed_in(node: Node) -> torch.dtype | None:
    target: Any = node.target
    packet = target.overloadpacket
    result = value_of(node)
    if not isinstance(result, Tensor) or result.is_complex() or result.dtype == torch.float64:
        return None
    if packet in _COMPARISONS:
        return _promoted(node)
    if packet in _LOGICAL:
        return None
    if packet in _SUMS or packet in _JOINED or packet in _CONDITION or torch.Tag.pointwise in target.tags:
        return result.dtype
    return None


def _promoted(node: Node) -> torch.dtype | None:
    left, right = (_operand(argument) for argument in node.args[:2])
    if left is None or right is None:
        return None
    dtype = torch.result_type(left, right)
    return None if dtype in (torch.float64, torch.bool) or dtype.is_complex else dtype


def _operand(argument: Any) -> Any:
    value = value_of(argument)
    if isinstance(value, torch.SymInt):
        return 1
    return value if isinstance(value, (Tensor, int, float)) and not isinstance(value, torch.SymFloat) else None


def _cast_inputs(module: GraphModule, node: Node, dtype: torch.dtype) -> None:
    insert = Insertion(module, node)
    copies: dict[Node, Node] = {}

    def cast(argument: Any) -> Any:
        if isinstance(argument, Node):
            value = value_of(argument)
            if not isinstance(value, Tensor) or value.dtype in (dtype, torch.float64) or value.is_complex():
                return argument
            if argument not in copies:
                copies[argument] = insert.cast(argument, dtype)
            return copies[argument]
        return argument

    target: Any = node.target
    untouched = 1 if target.overloadpacket in _CONDITION else 0
    node.args = (*node.args[:untouched], *tree_map(cast, node.args[untouched:]))
    node.kwargs = {key: cast(value) for key, value in node.kwargs.items()}
    # a number is wrapped in the type of the tensor that it meets, which is float now
    if dtype.is_floating_point and torch.Tag.pointwise in target.tags:
        names = [argument.name for argument in target._schema.arguments]
        node.args = tuple(
            float(value) if type(value) is int and name in ("other", "self", "value") else value
            for name, value in zip(names, node.args)
        )


def _large_numbers(module: GraphModule, node: Node) -> None:
    """Give numbers past 32 bits as tensors of int64: upstream writes every integer in 32."""
    target: Any = node.target
    with_tensors = WITH_TENSORS.get(target)
    if with_tensors is None or not any(type(a) is int and abs(a) >= _MOST for a in node.args):
        return
    insert = Insertion(module, node)
    node.args = tuple(
        insert(aten.full.default, [], a, dtype=torch.int64) if type(a) is int and abs(a) >= _MOST else a
        for a in node.args
    )
    node.target = with_tensors
