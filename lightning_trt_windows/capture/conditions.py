"""What a trace has taken for granted of its sizes, and at which sizes of the ranges that is not so.

A trace follows one way through the code, and notes each decision on sizes that led there. ``torch.export`` refuses
ranges of one dimension in which such a condition fails. Conditions on several dimensions (``h != w + 3``), and those
that it was told to defer, become checks of the program, and lowering removes these. So the sizes at which a condition
fails are looked for here, and there the program must be compared with the module.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch._export.utils import _get_shape_env_from_gm
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule
from torch.utils._sympy.printers import PythonPrinter

from lightning_trt_windows.artifact.shapes import DimRange
from lightning_trt_windows.backends.nodes import is_check

__all__ = ["Condition", "failing", "input_sizes", "remove_checks", "without_checks"]

_MOST_TRIED = 20_000
"""Combinations of sizes at which a condition is evaluated; of more, as many are drawn."""
_FUNCTIONS: dict[str, Any] = {
    "__builtins__": {},
    "math": math,
    "max": max,
    "min": min,
    "abs": abs,
    "int": int,
    "float": float,
}
_UNEVALUATED = (ArithmeticError, AttributeError, NameError, SyntaxError, TypeError, ValueError)


@dataclass(frozen=True)
class Condition:
    """Something that holds where the program was traced, and not at all sizes."""

    text: str
    """In the names of the dimensions."""
    symbols: tuple[str, ...]
    """Names of the dimensions."""
    sizes: tuple[Mapping[str, int], ...]
    """Where it fails, by symbol: the first, the last, and some between them."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """By symbol, what multiples it holds at and at no other size; empty where that is not so."""


def failing(
    program: ExportedProgram, inputs: Sequence[Sequence[str | None]], ranges: Mapping[str, DimRange], most: int = 5
) -> list[Condition]:
    """The conditions of ``program`` that fail somewhere in ``ranges``.

    Args:
        program: As traced.
        inputs: Names of the dimensions of each tensor input, ``None`` where they are static.
        ranges: Sizes of each name.
        most: Combinations of sizes to keep of each condition.

    Returns:
        The conditions; none where all hold.
    """
    environment: Any = _get_shape_env_from_gm(program.graph_module)
    if environment is None:
        return []
    names: dict[sympy.Symbol, tuple[str, int]] = {}
    for size, name in input_sizes(program, inputs):
        if name in ranges and (stepped := _symbol_and_step(size)) is not None:
            names[stepped[0]] = (name, stepped[1])
    noted = [guard.expr for guard in environment.guards]
    noted += [one.expr for several in environment.deferred_runtime_asserts.values() for one in several]
    order = {symbol: number for number, symbol in enumerate(names)}
    found: list[Condition] = []
    # sizes in steps are written in numbers of steps
    for expression in dict.fromkeys(map(environment.replace, noted)):
        symbols = sorted(expression.free_symbols, key=lambda symbol: (order.get(symbol, 0), str(symbol)))
        if not symbols or any(symbol not in names for symbol in symbols):
            continue  # of sizes that only data decides
        own = [names[symbol] for symbol in symbols]
        choices = [range(-(-ranges[name].min // step) * step, ranges[name].max + 1, step) for name, step in own]
        sizes = _failures(expression, symbols, choices, [step for _, step in own])
        if sizes:
            count = min(most, len(sizes))
            kept = [sizes[number * (len(sizes) - 1) // max(count - 1, 1)] for number in range(count)]
            labels = {s: sympy.Symbol(n) / step for s, (n, step) in zip(symbols, own)}
            text = PythonPrinter().doprint(expression.subs(labels) if len(str(expression)) < 200 else expression)
            axes = tuple(name for name, _ in own)
            multiples = dict(zip(axes, _steps(choices, sizes)))
            found.append(Condition(text, axes, tuple(dict(zip(axes, at)) for at in kept), multiples))
    return found


def input_sizes(program: ExportedProgram, inputs: Sequence[Sequence[str | None]]) -> Iterator[tuple[torch.SymInt, str]]:
    """Each dynamic size of the tensor inputs of ``program``, with its name."""
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    tensors = [nodes[name] for name in names if isinstance(nodes.get(name), torch.Tensor)]
    for tensor, symbols in zip(tensors, inputs, strict=True):
        for size, symbol in zip(tensor.shape, symbols, strict=True):
            if symbol is not None and isinstance(size, torch.SymInt):
                yield size, symbol


def without_checks(program: ExportedProgram) -> GraphModule:
    """``program`` to be called at sizes at which its conditions fail, as an engine could be."""
    module = program.module(check_guards=False)
    assert isinstance(module, GraphModule), "what module() makes"
    remove_checks(module)
    return module


def remove_checks(module: GraphModule) -> None:
    """Take the conditions that became checks out of ``module``, in place."""
    for node in list(module.graph.nodes):
        if is_check(node):
            module.graph.erase_node(node)
    module.recompile()


def _symbol_and_step(size: torch.SymInt) -> tuple[sympy.Symbol, int] | None:
    """Of ``8*s`` the symbol and 8."""
    expression = size.node.expr
    if len(expression.free_symbols) != 1:
        return None
    (symbol,) = expression.free_symbols
    step = expression / symbol
    return (symbol, int(step)) if step.is_Integer else None


def _steps(choices: Sequence[range], failures: Sequence[tuple[int, ...]]) -> list[int]:
    """Steps of which all combinations of multiples hold, and nothing else; none where there are no such steps."""
    if math.prod(map(len, choices)) > _MOST_TRIED:
        return []
    holding = set(itertools.product(*choices)) - set(failures)
    steps = [math.gcd(*(sizes[axis] for sizes in holding)) for axis in range(len(choices))]
    if not all(steps) or len(holding) < 2:
        return []
    multiples = ([size for size in sizes if size % step == 0] for sizes, step in zip(choices, steps))
    return steps if set(itertools.product(*multiples)) == holding else []


def _failures(
    expression: Any, symbols: Sequence[sympy.Symbol], choices: Sequence[range], steps: Sequence[int]
) -> list[tuple[int, ...]]:
    holds = _compiled(expression, symbols)
    if holds is None:
        return []
    failed = []
    for sizes in _combinations(choices):
        try:
            if not holds(*(size // step for size, step in zip(sizes, steps))):
                failed.append(sizes)
        except _UNEVALUATED:
            return []
    return failed


def _compiled(expression: Any, symbols: Sequence[sympy.Symbol]) -> Callable[..., Any] | None:
    """Python's own arithmetic is a thousand times as fast as substitution."""
    arguments = ", ".join(f"_{number}" for number in range(len(symbols)))
    renamed = expression.xreplace({s: sympy.Symbol(f"_{i}", integer=True) for i, s in enumerate(symbols)})
    try:
        made: Callable[..., Any] = eval(f"lambda {arguments}: {PythonPrinter().doprint(renamed)}", dict(_FUNCTIONS))
    except _UNEVALUATED:
        return None
    return made


def _combinations(choices: Sequence[range]) -> Iterator[tuple[int, ...]]:
    if math.prod(map(len, choices)) <= _MOST_TRIED:
        yield from itertools.product(*choices)
        return
    yield from itertools.product(*((sizes[0], sizes[-1]) for sizes in choices))
    draw = random.Random(0)  # the same for the same program
    for _ in range(_MOST_TRIED):
        yield tuple(draw.choice(sizes) for sizes in choices)
