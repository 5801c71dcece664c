"""``precision``: rewrite a lowered graph so that it computes in another floating type; inputs and outputs keep theirs.

TensorRT's networks are strongly typed, so the casts stand in the graph, for the engines and for the fallback operators
alike. The rules per operator are CUDA autocast's (``precision_rules``). Only weights differ: they take the precision
of what they meet, each cast once, so that engines get half the size.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_iter, tree_map, tree_map_only

from lightning_trt_windows._compat.tensorrt_rtx import is_transposed_convolution
from lightning_trt_windows.backends.precision_rules import (
    ATTENTION,
    BATCH_NORM,
    FACTORIES,
    Rule,
    fits,
    loses_little,
    rule_of,
)
from lightning_trt_windows.modules.dtypes import dtype_of, fake_in
from lightning_trt_windows.settings import Precision

__all__ = ["apply_precision"]

_to_copy = torch.ops.aten._to_copy.default
_SIZES = torch.SymInt, torch.SymFloat
_OF_VALUES = ("Tensor", "Optional[Tensor]", "number", "Optional[number]", "float", "Optional[float]")
"""Types of arguments, in a schema, that hold values of tensors when a number is given."""
_BATCH_NORM_WEIGHTS = 5
"""The first so many arguments of a BatchNorm: the tensor, weight, bias, mean, variance."""


def apply_precision(graph: GraphModule, precision: Precision | None) -> frozenset[str]:
    """Make ``graph`` compute in ``precision``, in place; ``None`` leaves its types as they are.

    Transposed convolutions in bfloat16 become float32 in any case: TensorRT-RTX has none.

    Returns:
        Names of casts from and to float64, which TensorRT does not have: they must fall back to PyTorch.
    """
    if precision is None:
        _transposed_in_single(graph)
        return frozenset()
    return _Pass(graph, dtype_of(precision)).run()


class _Pass:
    """One pass over one graph, node by node in order, so that a node's inputs have been decided before it."""

    def __init__(self, module: GraphModule, low: torch.dtype) -> None:
        self.module = module
        self.low = low
        self.captured: dict[Node, Any] = {n: n.meta.get("val") for n in module.graph.nodes}
        """Values as they were captured; ``meta["val"]`` is what they have become."""
        self.constants: dict[Node, Tensor | float] = {}
        """Weights and tensors of one number, with their values. Their precision is that of what they meet."""
        self.number = itertools.count()
        self.copies: dict[tuple[Node, torch.dtype], Node] = {}

    def run(self) -> frozenset[str]:
        """See ``apply_precision``."""
        for node in list(self.module.graph.nodes):
            if node.op == "get_attr":
                self._weight(node)
            elif node.op == "output":
                node.args = tree_map(self._as_captured, node.args)
            elif node.target is operator.getitem and isinstance(node.args[0], Node):
                node.meta["val"] = node.args[0].meta["val"][node.args[1]]
            elif isinstance(node.target, OpOverload):
                self._operator(node, node.target)
        # a weight that was only wanted in the other type, an input that was only wanted as it came in
        for node in [n for n in self.module.graph.nodes if n.op in ("get_attr", "call_function") and not n.users]:
            if node in self.constants or _widened(node) is not None:
                self.module.graph.erase_node(node)
        self.module.graph.lint()
        self.module.recompile()
        casts = {copy.name: (dtype, _dtype(node)) for (node, dtype), copy in self.copies.items()}
        return frozenset(name for name, dtypes in casts.items() if torch.float64 in dtypes)

    def _weight(self, node: Node) -> None:
        value = operator.attrgetter(str(node.target))(self.module)
        if isinstance(value, Tensor) and value.is_floating_point():
            self.constants[node] = value.detach()
            if "val" not in node.meta:
                node.meta["val"] = self._fake(value)

    def _operator(self, node: Node, target: OpOverload) -> None:
        name = target._schema.name.partition("::")[2]
        if name.startswith("sym_"):
            return  # a size is the same in every precision
        if name in FACTORIES and _dtype(node) is not None:
            number = node.args[FACTORIES[name]]
            if isinstance(number, (int, float)):
                self.constants[node] = float(number)
        elif target is _to_copy:
            self._explicit_cast(node)
        elif name == BATCH_NORM:
            self._batch_norm(node)
        else:
            if name == ATTENTION:
                self._finite_mask(node)
            self._compute_in(node, self._choice(node, target))

    # --- what each operator computes in

    def _choice(self, node: Node, target: OpOverload) -> torch.dtype | None:
        """The type that ``node`` computes in; ``None`` is as captured."""
        floats = [n for n in node.all_input_nodes if _dtype(n) is not None]
        rule = rule_of(target)
        if not floats or rule is Rule.AS_WRITTEN or any(_is_complex(v) for v in _values([node, *floats])):
            return None
        if rule is Rule.LOW:
            exist = all(fits(self.constants[n], self.low) for n in floats if n in self.constants)
            return self.low if exist and not _is_not_built(node, self.low) else torch.float32
        return self._following(floats) if rule is Rule.FOLLOWS and self._numbers_fit(node, target) else torch.float32

    def _following(self, floats: Iterable[Node]) -> torch.dtype:
        return self.low if all(self._can_be_low(n) for n in floats) else torch.float32

    def _can_be_low(self, node: Node) -> bool:
        constant = self.constants.get(node)
        return _dtype(node) == self.low if constant is None else loses_little(constant, self.low)

    def _numbers_fit(self, node: Node, target: OpOverload) -> bool:
        """Whether all numbers that meet tensors in ``node`` exist in the low precision."""
        arguments = [(a.type, node.kwargs.get(a.name)) for a in target._schema.arguments]
        arguments += [(a.type, value) for a, value in zip(target._schema.arguments, node.args)]
        # axes, sizes and indices are typed as integers
        numbers = [v for kind, v in arguments if isinstance(v, (int, float)) and str(kind) in _OF_VALUES]
        if not all(loses_little(float(number), self.low) for number in numbers):
            return False
        if torch.Tag.pointwise not in target.tags:
            return True
        if target is torch.ops.aten.mul.Tensor and node.args[0] is node.args[1]:
            return False  # a square, like pow: past 65504 from 256 on
        # positions and sizes: float16 has all integers up to 2048 only
        return not any(isinstance(v, _SIZES) or _is_integer(v) for v in _values(node.all_input_nodes))

    def _compute_in(self, node: Node, dtype: torch.dtype | None) -> None:
        """Give ``node`` its inputs in ``dtype``, and its results the same; ``None`` gives it what was captured."""
        if dtype is None:
            node.args, node.kwargs = tree_map(self._as_captured, (node.args, node.kwargs))
            return
        node.args, node.kwargs = tree_map(
            lambda a: self._cast(a, dtype) if isinstance(a, Node) and _dtype(a) is not None else a,
            (node.args, node.kwargs),
        )
        written: Any = node.kwargs.get("dtype")
        if written is not None and written.is_floating_point:
            node.kwargs = {**node.kwargs, "dtype": dtype}
        if node.target in (torch.ops.aten._softmax.default, torch.ops.aten._log_softmax.default):
            node.args = (*node.args[:2], False)  # "half to float" is for half
        self._becomes(node, dtype)

    def _explicit_cast(self, node: Node) -> None:
        """A cast in the user's code: float32 stays float32, float16 and bfloat16 mean the low precision."""
        source, wanted = node.args[0], node.kwargs.get("dtype")
        if isinstance(source, Node) and isinstance(wanted, torch.dtype) and wanted.is_floating_point:
            dtype = torch.float32 if wanted in (torch.float32, torch.float64) else self.low
            node.kwargs = {**node.kwargs, "dtype": dtype}
            self._becomes(node, dtype)
        elif isinstance(source, Node) and wanted is None and _dtype(source) is not None:
            self._becomes(node, _dtype(source))

    def _batch_norm(self, node: Node) -> None:
        """Four statistics per channel are a scale and a shift: rounded once, and without 1 / sqrt(1e-5) in float16."""
        arguments: tuple[Any, ...] = node.args
        x, weights = arguments[0], arguments[1:_BATCH_NORM_WEIGHTS]
        dtype = self._following([x])
        if dtype == torch.float32 or not all(w is None or w in self.constants for w in weights):
            self._compute_in(node, torch.float32)
            return
        scale, shift = _scale_and_shift(*(self.constants.get(w) for w in weights), eps=arguments[6])
        if fits(scale, dtype) and fits(shift, dtype):
            values = scale, shift, torch.zeros_like(scale), torch.ones_like(scale)
            node.args = (x, *(self._new_weight(node, value.to(dtype)) for value in values), arguments[5], 0.0)
            self._compute_in(node, dtype)
        else:
            self._compute_in(node, torch.float32)

    def _finite_mask(self, node: Node) -> None:
        """Attention's float mask: the lowest float32 would become -inf, and a row of those NaN.

        A constant mask that has such numbers keeps its attention in float32.
        """
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        if not isinstance(mask, Node) or (dtype := _dtype(mask)) is None or mask in self.constants:
            return
        if torch.finfo(dtype).max <= torch.finfo(self.low).max:
            return
        # half of the lowest number leaves room for the scores it is added to
        lowest = torch.finfo(self.low).min / 2
        with self.module.graph.inserting_before(node):
            clamped = self.module.graph.call_function(torch.ops.aten.clamp.default, (mask, lowest, -lowest))
        clamped.meta = {**mask.meta}
        self.captured[clamped] = mask.meta["val"]
        node.replace_input_with(mask, clamped)

    # --- nodes

    def _as_captured(self, value: Any) -> Any:
        captured = self.captured.get(value) if isinstance(value, Node) else None
        if isinstance(captured, Tensor) and captured.is_floating_point():
            return self._cast(value, captured.dtype)
        return value

    def _cast(self, node: Node, dtype: torch.dtype) -> Node:
        if _dtype(node) == dtype:
            return node
        if (source := _widened(node)) is not None and _dtype(source) == dtype:
            return source
        if (node, dtype) not in self.copies:
            self.copies[node, dtype] = self._copy(node, dtype)
        return self.copies[node, dtype]

    def _copy(self, node: Node, dtype: torch.dtype) -> Node:
        graph = self.module.graph
        constant = self.constants.get(node)
        if isinstance(constant, Tensor):
            return self._new_weight(node, constant.to(dtype))
        # placeholders stay together at the top
        last = [n for n in graph.nodes if n.op == "placeholder"][-1] if node.op == "placeholder" else node
        with graph.inserting_after(last):
            if isinstance(constant, float) and isinstance(node.target, OpOverload):
                copy = graph.call_function(node.target, node.args, {**node.kwargs, "dtype": dtype})
            else:
                copy = graph.call_function(_to_copy, (node,), {"dtype": dtype})
        copy.meta = {**node.meta, "val": fake_in(node.meta["val"], dtype)}
        copy.meta.pop("tensor_meta", None)
        return copy

    def _new_weight(self, near: Node, value: Tensor) -> Node:
        name = f"_in_precision_{next(self.number)}"
        self.module.register_buffer(name, value)
        with self.module.graph.inserting_before(near):
            node = self.module.graph.get_attr(name)
        node.meta["val"] = self._fake(value)
        return node

    def _becomes(self, node: Node, dtype: torch.dtype | None) -> None:
        """Note that the floating results of ``node`` are of ``dtype``."""
        if dtype is not None:
            node.meta["val"] = tree_map_only(
                Tensor, lambda v: fake_in(v, dtype) if v.is_floating_point() else v, node.meta["val"]
            )
            node.meta.pop("tensor_meta", None)

    def _fake(self, value: Tensor) -> Tensor:
        mode = next(v.fake_mode for val in self.captured.values() for v in tree_iter(val) if hasattr(v, "fake_mode"))
        fake: Tensor = mode.from_tensor(value, static_shapes=True)
        return fake


def _is_not_built(node: Node, dtype: torch.dtype | None) -> bool:
    return dtype == torch.bfloat16 and is_transposed_convolution(node)


def _transposed_in_single(module: GraphModule) -> None:
    """Casts around the transposed convolutions of a module in bfloat16, which TensorRT-RTX does not build so."""
    graph = module.graph
    found = [node for node in graph.nodes if node.op == "call_function" and _is_not_built(node, _dtype(node))]
    for node in found:
        value = node.meta["val"]
        for argument in node.all_input_nodes:
            with graph.inserting_before(node):
                if argument.op == "get_attr":  # the converter wants weights, not what is computed of them
                    name, weight = f"_in_single_{argument.name}", operator.attrgetter(str(argument.target))(module)
                    module.register_buffer(name, weight.detach().float())
                    wide = graph.get_attr(name)
                elif _dtype(argument) is not None:
                    wide = graph.call_function(_to_copy, (argument,), {"dtype": torch.float32})
                else:
                    continue
            wide.meta = {**argument.meta}
            if "val" in argument.meta:
                wide.meta["val"] = fake_in(argument.meta["val"], torch.float32)
            node.replace_input_with(argument, wide)
        with graph.inserting_after(node):
            narrow = graph.call_function(_to_copy, (node,), {"dtype": value.dtype})
        narrow.meta = {**node.meta}
        node.meta = {**node.meta, "val": fake_in(value, torch.float32)}
        node.replace_all_uses_with(narrow, delete_user_cb=lambda user, own=narrow: user is not own)
    if found:
        graph.eliminate_dead_code()
        graph.lint()
        module.recompile()


def _scale_and_shift(weight: Any, bias: Any, mean: Any, variance: Any, *, eps: float) -> tuple[Tensor, Tensor]:
    scale = (variance.double() + eps).rsqrt() * (1.0 if weight is None else weight.double())
    return scale, (0.0 if bias is None else bias.double()) - mean.double() * scale


def _values(nodes: Iterable[Node]) -> list[Any]:
    return [value for node in nodes for value in tree_iter(node.meta.get("val"))]


def _dtype(node: Any) -> torch.dtype | None:
    """The floating type of a tensor, or of the first of several; ``None`` for everything else."""
    found = [v for v in _values([node]) if isinstance(v, Tensor)] if isinstance(node, Node) else []
    return found[0].dtype if found and found[0].is_floating_point() else None


def _widened(node: Node) -> Node | None:
    """What ``node`` casts to a type that has all its values; ``None`` where it does no such thing."""
    source = node.args[0] if node.target is _to_copy else None
    before, after = _dtype(source), _dtype(node)
    if not isinstance(source, Node) or before is None or after is None or before == after:
        return None
    return source if torch.promote_types(before, after) == after else None


def _is_complex(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_complex()


def _is_integer(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and value.dtype is not torch.bool
