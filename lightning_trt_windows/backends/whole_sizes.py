"""Sizes that were computed in floating numbers, in whole numbers: ``math.trunc(1.5 * n)`` is ``3 * n // 2``.

An engine computes sizes as integers, and what passes its border must be recomputed on the other side. A quotient of
integers takes the place of a rounded floating number only where both are the same for every size that may come. What is
made of several sizes is left to ``exact_sizes``.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from fractions import Fraction
from typing import Any

import sympy
import torch
from torch.utils._sympy import functions
from torch.utils._sympy.functions import FloorDiv

from lightning_trt_windows.backends.exact_sizes import exactly
from lightning_trt_windows.errors import CompileError

__all__ = ["in_whole_numbers"]

_MOST_SIZES = 1 << 20
"""As many sizes are compared one by one."""
_LARGEST = 1 << 31
_DENOMINATORS = (16, 256, 4096, 65536)
_ROUNDED = {
    name: rounding
    for name, rounding in (
        ("TruncToInt", math.trunc),
        ("FloorToInt", math.floor),
        ("CeilToInt", math.ceil),
        ("RoundToInt", round),
    )
    if hasattr(functions, name)
}
_FUNCTIONS: dict[str, Any] = {
    **_ROUNDED,
    "ToFloat": float,
    "FloatTrueDiv": operator.truediv,
    "IntTrueDiv": operator.truediv,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "PythonMod": operator.mod,
    "Mod": operator.mod,
    "FloatPow": operator.pow,
    "PowByNatural": operator.pow,
    "Min": min,
    "Max": max,
}
"""PyTorch's symbolic functions by name, as Python computes them when nothing is traced."""


def in_whole_numbers(size: torch.SymInt) -> Any:
    """The expression of ``size`` with a quotient of integers for each rounded floating number.

    Args:
        size: A symbolic size; what its symbols may be is asked of its shape environment.

    Returns:
        The expression.

    Raises:
        CompileError: There is no such quotient, or it cannot be shown to be the same for every size.
    """
    expression = size.node.expr
    rounded = [part for part in sympy.postorder_traversal(expression) if type(part).__name__ in _ROUNDED]
    return expression.xreplace({part: _quotient(part, size) for part in rounded})


def _quotient(part: Any, size: torch.SymInt) -> Any:
    symbols = list(part.free_symbols)
    if len(symbols) != 1:
        exact = exactly(part, lambda symbol: _bounds(symbol, size), _function)
        if exact is None:
            raise CompileError(_refusal(part, f"it is made of {len(symbols)} sizes, and not of whole numbers only"))
        return exact
    symbol = symbols[0]
    try:
        lowest, highest = _bounds(symbol, size)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise CompileError(_refusal(part, f"{symbol} has no upper bound")) from error
    if highest - lowest > _MOST_SIZES:
        raise CompileError(_refusal(part, f"{symbol} has more than {_MOST_SIZES} sizes"))
    try:
        inner, value = _function(part.args[0], symbol), _function(part, symbol)
        values = [int(value(n)) for n in range(lowest, highest + 1)]
        slope = (inner(highest) - inner(lowest)) / (highest - lowest) if highest > lowest else 0.0
        slopes = [Fraction(slope).limit_denominator(largest) for largest in _DENOMINATORS]
    # a function that is not known here, a division by nothing, a number past all floats
    except (NameError, TypeError, ArithmeticError, ValueError) as error:
        raise CompileError(_refusal(part, f"it cannot be computed: {error}")) from error
    for fraction in slopes:
        times, over = fraction.numerator, fraction.denominator
        more = max(over * v - times * n for n, v in zip(itertools.count(lowest), values))
        same = all(v == (times * n + more) // over for n, v in zip(itertools.count(lowest), values))
        # TensorRT rounds towards zero, and sizes may pass through 32 bits
        if same and min(values) >= 0 and abs(times) * highest + abs(more) < _LARGEST:
            return FloorDiv(times * symbol + more, sympy.Integer(over))
    raise CompileError(_refusal(part, f"no quotient of integers gives the same for all sizes {lowest} to {highest}"))


def _bounds(symbol: Any, size: torch.SymInt) -> tuple[int, int]:
    environment: Any = size.node.shape_env
    bounds: Any = environment.var_to_range.get(symbol)
    lowest, highest = int(bounds.lower), int(bounds.upper)
    # the tracer takes a size of 1 for special and sizes that vary for 2 and more
    return 1 if lowest == 2 else lowest, highest


def _function(expression: Any, symbol: Any) -> Any:
    """Python's function of one number for ``expression``, with the floating numbers to their last bit."""
    numbers = sorted(expression.atoms(sympy.Float), key=float)
    names = [sympy.Symbol(f"number_{i}") for i in range(len(numbers))]
    written = expression.xreplace(dict(zip(numbers, names)))
    function = sympy.lambdify([*names, symbol], written, modules=[_FUNCTIONS, "math"])
    return functools.partial(function, *(float(number) for number in numbers))


def _refusal(part: Any, why: str) -> str:
    return (
        f"the size {part} is computed in floating numbers, crosses an engine's border, and cannot be computed there in "
        f"integers: {why}. Compute sizes in integers (3 * n // 2 in place of math.floor(1.5 * n)), fix the size that "
        "varies, or give an interpolation its output size"
    )
