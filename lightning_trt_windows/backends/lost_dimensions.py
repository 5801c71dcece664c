"""Sizes that a graph takes no longer after lowering: they are refused, with the operator, its line and a way on.

Decompositions run as a trace does, which takes a size for 2 or more wherever it comes up. Where ``x.unfold(0, 3, 1)``
has one window, the traced range of ``x`` begins at 4 afterwards. That alone takes nothing away: where the lowered graph
has the shapes at 3 that it says, engines are built for the range that was captured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node

from lightning_trt_windows.artifact.shapes import range_text
from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.backends.shapes_at import NoShapesError, node_that_changes
from lightning_trt_windows.backends.specialized import operator_that_specializes
from lightning_trt_windows.errors import CompileError

__all__ = ["refuse_lost_dimensions"]

_MOST_TRIED = 8
"""Sizes of a dimension at which shapes are looked at, of those that lowering left out: the smallest and the largest."""


@dataclass(frozen=True)
class _Dimension:
    """One dynamic dimension of an input."""

    placeholder: str
    """What the program calls the input."""
    name: str
    """What people call it."""
    axis: int

    def __str__(self) -> str:
        return f"dimension {self.axis} of input {self.name}"


def refuse_lost_dimensions(
    source: ExportedProgram,
    lowered: GraphModule,
    names: Sequence[str] | None = None,
    table: Mapping[Any, Any] | None = None,
) -> None:
    """Compare every input's dynamic dimensions before and after lowering.

    BatchNorm in train mode, for one, decomposes on a CPU into something that fixes the batch at the traced size.

    Args:
        source: The program as it was captured.
        lowered: The graph that was made of it.
        names: What people call the inputs that are tensors; by default what the program calls them.
        table: What its operators were decomposed by, to find the one that is to blame.

    Raises:
        CompileError: A dimension that was dynamic is static, or takes sizes no longer that it took.
    """
    specs = [spec for spec in source.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    traced = {n.name: n.meta.get("val") for n in source.graph.nodes if n.op == "placeholder"}
    before = {spec.arg.name: traced.get(spec.arg.name) for spec in specs}
    after = [n.meta.get("val") for n in lowered.graph.nodes if n.op == "placeholder"]
    called = iter([name for name, value in before.items() if isinstance(value, Tensor)] if names is None else names)
    for (placeholder, wanted), found in zip(before.items(), after, strict=True):
        if not isinstance(wanted, Tensor):
            continue
        name = next(called)
        for axis, (size, left) in enumerate(zip(wanted.shape, found.shape, strict=True)):
            if isinstance(size, torch.SymInt):
                dimension = _Dimension(placeholder, name, axis)
                _refuse_fixed(source, dimension, left, table)
                _refuse_narrowed(source, lowered, dimension, left, table)


def _refuse_fixed(
    source: ExportedProgram, dimension: _Dimension, left: int | torch.SymInt, table: Mapping[Any, Any] | None
) -> None:
    # a symbol that a guard has tied to a number is still a SymInt
    if isinstance(left, torch.SymInt) and left.node.expr.free_symbols:
        return
    if any(_trains(node) for node in source.graph.nodes):
        cause = "A BatchNorm in train mode does that: call eval() on it"
    else:
        cause = (
            f"{_operator(source, dimension, table)} decomposes into one that takes no other size. Fix this "
            f'dimension (RangeOptions(static=["{dimension.name}.{dimension.axis}"]), or {left} in its InputSpec), or '
            "write the operator differently"
        )
    raise CompileError(
        f"lowering fixed the dynamic {dimension} at {left}; the engine would take no other size. {cause}"
    )


def _trains(node: Node) -> bool:
    """Whether it is a BatchNorm that computes statistics of the batch: its sixth argument says so."""
    return node.op == "call_function" and "batch_norm" in str(node.target) and True in node.args[5:6]


def _operator(source: ExportedProgram, dimension: _Dimension, table: Mapping[Any, Any] | None) -> str:
    node = operator_that_specializes(source, table or {}, dimension.placeholder, dimension.axis)
    return "An operator" if node is None else f"{operator_name(node)}{model_line(node)}"


def _refuse_narrowed(
    source: ExportedProgram,
    lowered: GraphModule,
    dimension: _Dimension,
    size: torch.SymInt,
    table: Mapping[Any, Any] | None,
) -> None:
    """Compare the range of a dimension, which becomes TensorRT's profile, with the one that was captured."""
    environment: Any = size.node.shape_env
    for symbol in size.node.expr.free_symbols:
        wanted, left = source.range_constraints.get(symbol), environment.var_to_range.get(symbol)
        if wanted is None or left is None:
            continue
        # tracing always raises a lower bound of 1 to 2, and the profile lowers it again
        lower = left.lower if left.lower > max(wanted.lower, 2) else wanted.lower
        if lower == wanted.lower and left.upper >= wanted.upper:
            continue
        if left.upper >= wanted.upper:
            sizes = range(int(wanted.lower), int(lower))
            tried = sorted({*sizes[: _MOST_TRIED - 1], sizes[-1]})
            reason = next(filter(None, (_what_changes(lowered, symbol, n) for n in tried)), "")
            if not reason:
                continue
        else:
            reason = f"{_operator(source, dimension, table)} decomposes into what works up to there"
        before = range_text(*(_at(size.node.expr, symbol, n) for n in (wanted.lower, wanted.upper)))
        first, last = (_at(size.node.expr, symbol, n) for n in (lower, min(left.upper, wanted.upper)))
        hint: Any = size.node.hint
        left_over = f"[{first}, {min(max(int(hint), first), last)}, {last}]"
        raise CompileError(
            f"lowering narrowed {dimension} from {before} to {range_text(first, last)}: {reason}. Give it the range "
            f'that is left, RangeOptions(dynamic={{"{dimension.name}.{dimension.axis}": {left_over}}}), or a DimRange '
            "of it in its InputSpec"
        )


def _at(size: sympy.Expr, symbol: sympy.Symbol, number: Any) -> int:
    return int(size.xreplace({symbol: sympy.Integer(number)}))


def _what_changes(lowered: GraphModule, symbol: sympy.Symbol, number: int) -> str:
    """In words what has another shape than ``lowered`` says where ``symbol`` is ``number``; empty where nothing has."""
    given = [node.meta.get("val") for node in lowered.graph.nodes if node.op == "placeholder"]
    numbers = {**_traced_at(given), symbol: sympy.Integer(number)}
    shapes = [
        [n if isinstance(n, int) else int(n.node.expr.xreplace(numbers)) for n in value.shape]
        if isinstance(value, Tensor)
        else None
        for value in given
    ]
    try:
        found = node_that_changes(lowered, list(zip(given, shapes)), numbers)
    except NoShapesError as error:
        return f"at {number}, {operator_name(error.node)}{model_line(error.node)} fails ({error})"
    return "" if found is None else f"at {number}, {operator_name(found[0])}{model_line(found[0])} gives {found[1]}"


def _traced_at(given: Sequence[Any]) -> dict[sympy.Symbol, sympy.Integer]:
    """What each symbol in the shapes of ``given`` was in the trace."""
    numbers: dict[sympy.Symbol, sympy.Integer] = {}
    for value in given:
        for size in value.shape if isinstance(value, Tensor) else ():
            symbols = size.node.expr.free_symbols if isinstance(size, torch.SymInt) else ()
            if len(symbols) == 1:
                (symbol,) = symbols
                step, offset = size.node.expr.coeff(symbol), size.node.expr.subs(symbol, 0)
                numbers[symbol] = sympy.Integer((size.node.hint - offset) // step)
    return numbers
