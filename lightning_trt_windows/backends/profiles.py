"""The ranges that were asked for, while TensorRT's profiles are made of them.

Tracing takes every size below 2 out of a symbol's range (0 and 1 are special to it). Upstream puts a lower bound of 2
back to 1, which is right for a symbol that stands alone and wrong for what is computed of symbols: of ``4*n`` with n
from 1 it makes 8, of ``batch*length`` twice the smallest product, and the engine refuses sizes that the artifact
promises. All releases to 2.14; delete when ``test_profiles_reach_what_was_asked_for`` passes without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils._sympy.value_ranges import ValueRanges

__all__ = ["Ranges", "promised_ranges", "ranges_in_force"]

Ranges = Mapping[Any, Any]
"""Symbol to ``ValueRanges``."""


def promised_ranges(program: ExportedProgram) -> Ranges:
    """The ranges as they were captured; lowering changes those of the program in place.

    Of a dimension in steps, ``torch.export`` keeps the range that was asked for with the expression, ``4*n``, and the
    traced one with the symbol.
    """
    ranges = {key: found for key, found in program.range_constraints.items() if key.is_Symbol}
    for expression, found in program.range_constraints.items():
        if expression.is_Symbol or len(expression.free_symbols) != 1:
            continue
        (symbol,) = expression.free_symbols
        step, offset = expression.coeff(symbol), expression.subs(symbol, 0)
        if symbol in ranges and step.is_Integer and step > 0 and expression == step * symbol + offset:
            lower = -((offset - found.lower) // step)
            ranges[symbol] = ValueRanges(min(ranges[symbol].lower, lower), ranges[symbol].upper)
    return ranges


@contextlib.contextmanager
def ranges_in_force(graph: GraphModule, promised: Ranges) -> Iterator[None]:
    """Let the symbols of ``graph`` start and end where they were promised to."""
    changed: list[tuple[Any, Any, Any]] = []
    try:
        for environment, symbol in _symbols(graph):
            wanted, traced = promised.get(symbol), environment.var_to_range.get(symbol)
            if wanted is None or traced is None:
                continue
            lower, upper = min(wanted.lower, traced.lower), min(wanted.upper, traced.upper)
            if (lower, upper) != (traced.lower, traced.upper):
                environment.var_to_range[symbol] = ValueRanges(lower, upper)
                changed.append((environment, symbol, traced))
        yield
    finally:
        for environment, symbol, traced in reversed(changed):
            environment.var_to_range[symbol] = traced


def _symbols(graph: GraphModule) -> Iterator[tuple[Any, Any]]:
    """Each symbol in the sizes of the graph's inputs, with the environment that knows its range."""
    for node in graph.graph.nodes:
        if node.op != "placeholder":
            continue
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, torch.Tensor) else (value,):
            if isinstance(size, torch.SymInt):
                yield from ((size.node.shape_env, symbol) for symbol in size.node.expr.free_symbols)
