"""Converters of our own, in place of upstream's while a program is compiled.

They are for what no other operators can say: a choice between int64 tensors, sums of integers along an axis, a lookup
whose sizes vary, one row whose place is a size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from lightning_trt_windows._compat.torch_tensorrt import Upstream

__all__ = ["own_converters"]

aten = torch.ops.aten


@contextlib.contextmanager
def own_converters(blocks: Upstream) -> Iterator[None]:
    """Let upstream's interpreter and partitioner find our converters before its own."""
    registry = blocks.CONVERTERS.registries[0]
    support = type(registry[aten.where.self][0])
    replaced = {}
    for target, (make, takes) in _CONVERTERS.items():
        own = support(
            converter_implementation=make(blocks),
            capability_validator=lambda node, settings, takes=takes: takes(node),
            supports_dynamic_shapes=True,
        )
        # the first that takes a node converts it
        replaced[target] = [own, *registry.get(target, ())]
    before = {target: registry[target] for target in replaced if target in registry}
    registry.update(replaced)
    try:
        yield
    finally:
        for target in replaced:
            del registry[target]
        registry.update(before)


class _Network:
    """The network under construction, and how operands become tensors of it."""

    def __init__(self, blocks: Upstream, context: Any, name: str) -> None:
        self.trt, self.net, self.name = blocks.trt, context.net, name
        self.context = context
        self.get_tensor = blocks.get_trt_tensor

    def tensor(self, value: Any, suffix: str) -> Any:
        return (
            value
            if isinstance(value, self.trt.ITensor)
            else self.get_tensor(self.context, value, f"{self.name}_{suffix}")
        )

    def cast(self, tensor: Any, dtype: Any, suffix: str) -> Any:
        if tensor.dtype == dtype:
            return tensor
        layer = self.net.add_cast(tensor, dtype)
        layer.name = f"{self.name}_{suffix}"
        return layer.get_output(0)

    def of_rank(self, tensor: Any, rank: int, suffix: str) -> Any:
        """``tensor`` with axes of size 1 before its own."""
        missing = rank - len(tensor.shape)
        if missing <= 0:
            return tensor
        axes = self.tensor(np.arange(missing, dtype=np.int64), f"{suffix}_axes")
        layer = self.net.add_unsqueeze(tensor, axes)
        layer.name = f"{self.name}_{suffix}"
        return layer.get_output(0)

    def named(self, layer: Any, kind: str) -> Any:
        layer.name = f"[{kind}]-[{self.name}]"
        return layer.get_output(0)


Converter = Callable[[Any, Any, Sequence[Any], dict[str, Any], str], Any]


def _where(blocks: Upstream) -> Converter:
    """Upstream chooses between integers in int32, which cuts what is past 2**31."""

    def convert(context: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
        network = _Network(blocks, context, name)
        condition, x, y = (network.tensor(a, part) for a, part in zip(args, ("condition", "input", "other")))
        condition = network.cast(condition, blocks.trt.bool, "condition_cast")
        rank = max(len(t.shape) for t in (condition, x, y))
        condition, x, y = (
            network.of_rank(t, rank, part) for t, part in ((condition, "condition_axes"), (x, "x_axes"), (y, "y_axes"))
        )
        if x.dtype != y.dtype:
            value = context.current_node.meta["val"] if context.current_node is not None else None
            dtype = blocks.trt_dtype(value.dtype) if isinstance(value, torch.Tensor) else x.dtype
            x, y = network.cast(x, dtype, "x_cast"), network.cast(y, dtype, "y_cast")
        return network.named(network.net.add_select(condition, x, y), "where")

    return convert


def _cumsum(blocks: Upstream) -> Converter:
    """Upstream adds in a loop, integers in float32, and cannot where there is nothing to add."""

    def convert(context: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
        network = _Network(blocks, context, name)
        x = network.tensor(args[0], "input")
        given = x.dtype
        floating = given in (blocks.trt.float32, blocks.trt.float16, blocks.trt.bfloat16)
        # as eager does: the half types are summed in float32
        x = network.cast(x, blocks.trt.float32 if floating else blocks.trt.int64, "wide")
        axis = network.tensor(np.array(args[1] % len(x.shape), dtype=np.int64), "axis")
        layer = network.net.add_cumulative(x, axis, blocks.trt.CumulativeOperation.SUM, False, False)
        total = network.named(layer, "cumsum")
        return network.cast(total, given, "as_given") if floating else total

    return convert


def _sums(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in _SUMMED and value.dim() > 0


_SUMMED = {torch.int64, torch.int32, torch.float32, torch.float16, torch.bfloat16}


def _gather(blocks: Upstream) -> Converter:
    """Upstream registers its converter for sizes that do not vary, which the layer does not ask for."""

    def convert(context: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
        network = _Network(blocks, context, name)
        x, index = network.tensor(args[0], "input"), network.tensor(args[2], "index")
        layer = network.net.add_gather(x, index, args[1] % len(x.shape))
        layer.mode = blocks.trt.GatherMode.ELEMENT
        return network.named(layer, "gather")

    return convert


def _gathers(node: Node) -> bool:
    """The layer wants the same sizes but along the axis."""
    x, index = (_value(node.args[i]) for i in (0, 2))
    if x is None or index is None or x.dim() == 0 or x.dim() != index.dim():
        return False
    axis = node.args[1] % x.dim()  # type: ignore[operator]
    return all(_expression(a) == _expression(b) for i, (a, b) in enumerate(zip(x.shape, index.shape)) if i != axis)


def _select(blocks: Upstream) -> Converter:
    """One row, whose place may be a size."""

    def convert(context: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
        network = _Network(blocks, context, name)
        x, place = network.tensor(args[0], "input"), args[2]
        if isinstance(place, blocks.trt.ITensor):
            if len(place.shape):
                shuffle = network.net.add_shuffle(place)
                shuffle.reshape_dims = ()
                place = network.named(shuffle, "place")
        else:
            place = network.tensor(np.array(place, dtype=np.int64), "place")
        return network.named(network.net.add_gather(x, place, args[1] % len(x.shape)), "select")

    return convert


def _value(node: Any) -> torch.Tensor | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value if isinstance(value, torch.Tensor) else None


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size


_CONVERTERS: dict[Any, tuple[Callable[[Upstream], Converter], Callable[[Node], bool]]] = {
    aten.where.self: (_where, lambda node: True),
    aten.cumsum.default: (_cumsum, _sums),
    aten.gather.default: (_gather, _gathers),
    aten.select.int: (_select, lambda node: True),
}
