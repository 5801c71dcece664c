"""Sizes of several dimensions that floating numbers come to exactly: ``int(windows / (h * w / 7 / 7))`` is the batch.

Attention over windows puts its images together like that (Swin Transformer's own code, and what was made from it).
The division has nothing left over, because ``h`` and ``w`` were padded to multiples of the window. Where every number
on the way is whole, and small enough for a floating number to hold it, what is computed is what rational numbers give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import sympy
from torch.utils._sympy.functions import FloorDiv

__all__ = ["exactly"]

_EXACT = 1 << 53
"""Whole numbers below it have a floating number each."""
_MOST_SIZES = 1 << 14
"""As many sizes are looked at one by one."""
_QUOTIENTS = ("FloatTrueDiv", "IntTrueDiv")
_FLOORS = ("FloorDiv", "CleanDiv")


class _NotExactError(Exception):
    """A number on the way is not whole, or not known to be."""


Bounds: TypeAlias = Callable[[Any], tuple[int, int]]
"""Gives the smallest and the largest value of a symbol."""
Function: TypeAlias = Callable[[Any, Any], Callable[[int], Any]]
"""Makes Python's function of an expression of one symbol."""


def exactly(number: Any, bounds: Bounds, function: Function) -> Any:
    """``number`` without floating numbers.

    Args:
        number: An expression of PyTorch's symbols that is rounded after all, and whole before already.
        bounds: Gives the smallest and the largest value of a symbol.
        function: Makes Python's function of an expression of one symbol.

    Returns:
        An expression of integers with the same value at all sizes; ``None`` where that cannot be shown.
    """
    try:
        return _Exact(number, bounds, function).expression
    # a symbol without bounds, a function that is not known, a division by nothing
    except (_NotExactError, NameError, TypeError, ArithmeticError, ValueError, AttributeError, sympy.PolynomialError):
        return None


class _Exact:
    def __init__(
        self,
        number: Any,
        bounds: Callable[[Any], tuple[int, int]],
        function: Callable[[Any, Any], Callable[[int], Any]],
    ) -> None:
        self._bounds = bounds
        self._function = function
        self._largest: dict[Any, int] = {}
        """Largest absolute value of each symbol that a number is made of here."""
        self._meaning: dict[Any, Any] = {}
        """What stands for a part of ``number``."""
        steps = self._in_steps(number)
        value = self._value(number.xreplace(steps))
        self.expression = value.xreplace(self._meaning)

    def _in_steps(self, number: Any) -> dict[Any, Any]:
        """For each part that is divided with nothing left over, its divisor times a symbol for the quotient."""
        found: dict[Any, Any] = {}
        divisors: dict[Any, int] = {}
        for division in sympy.postorder_traversal(number):
            if type(division).__name__ in _FLOORS and division.args[1].is_Integer:
                part, divisor = division.args[0], int(division.args[1])
                if len(part.free_symbols) == 1 and not any(n % divisor for n in self._values(part)):
                    divisors[part] = math.lcm(divisors.get(part, 1), divisor)
        for part, divisor in divisors.items():
            if part.is_Symbol or part.func is sympy.Mul:
                continue  # sympy sees through these itself
            quotient = sympy.Symbol(f"quotient_{len(found)}", integer=True, positive=True)
            self._largest[quotient] = max(map(abs, self._values(part))) // divisor
            self._meaning[quotient] = FloorDiv(part, sympy.Integer(divisor))
            found[part] = divisor * quotient
        return found

    def _values(self, part: Any) -> list[int]:
        """Of a part that is made of one symbol, at each of its sizes."""
        (symbol,) = part.free_symbols
        low, high = self._bounds(symbol)
        if high - low > _MOST_SIZES:
            raise _NotExactError
        at = self._function(part, symbol)
        return [int(at(n)) for n in range(low, high + 1)]

    def _value(self, number: Any) -> Any:
        """As a polynomial with whole coefficients, whose values floating numbers hold."""
        kind = type(number).__name__
        if number.is_Number:
            return self._whole(sympy.Rational(number))
        if number.is_Symbol:
            if number not in self._largest:
                self._largest[number] = max(map(abs, self._bounds(number)))
            return number
        if kind == "ToFloat" or kind.endswith("ToInt"):
            return self._value(number.args[0])
        if kind in _QUOTIENTS:
            return self._whole(sympy.cancel(self._value(number.args[0]) / self._value(number.args[1])))
        if kind in _FLOORS:
            quotient = sympy.cancel(self._value(number.args[0]) / self._value(number.args[1]))
            return self._whole(quotient)
        if number.is_Add or number.is_Mul:
            return self._whole(sympy.expand(number.func(*map(self._value, number.args))))
        if len(number.free_symbols) == 1:
            return self._opaque(number)
        raise _NotExactError

    def _opaque(self, part: Any) -> Any:
        """A symbol for a remainder or the like, whose values are looked at."""
        for symbol, meaning in self._meaning.items():
            if meaning == part:
                return symbol
        symbol = sympy.Symbol(f"part_{len(self._meaning)}", integer=True)
        self._largest[symbol] = max(map(abs, self._values(part)))
        self._meaning[symbol] = part
        return symbol

    def _whole(self, number: Any) -> Any:
        polynomial = sympy.Poly(number, *number.free_symbols) if number.free_symbols else None
        terms = polynomial.terms() if polynomial is not None else [((), number)]
        if any(not coefficient.is_Integer for _, coefficient in terms):
            raise _NotExactError
        largest = 0
        for powers, coefficient in terms:
            held = polynomial.gens if polynomial is not None else ()
            largest += abs(int(coefficient)) * math.prod(self._largest[s] ** p for s, p in zip(held, powers))
        if largest >= _EXACT:
            raise _NotExactError
        return number
