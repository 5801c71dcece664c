"""Room above dimensions of the sizes 1 and 2.

A trace takes 1 for something else than a size, wherever it comes up. Of a range 1..2 the 2 alone is left then, and
PyTorch takes it for a number: a batch of up to 2 was fixed at 2, or decided a branch (``len(x) == 2``) without a word.
With a third size in the range, which nobody is promised, it stays a size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sympy
from torch.export import ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from lightning_trt_windows._compat.torch import shape_environment

__all__ = ["ROOM", "needs_room", "room_given"]

ROOM = 3
"""The largest size, in steps, that a trace is told of in place of 2."""


def needs_room(low: int, high: int) -> bool:
    """Whether a range, in steps, has the sizes 1 and 2 only."""
    return low <= 1 and high == 2


@contextlib.contextmanager
def room_given(program: ExportedProgram) -> Iterator[None]:
    """Let PyTorch take the symbols of ``program`` for sizes while the block lowers it.

    Its ranges are what they were afterwards. Its environment, which the lowered graph shares, keeps the room.
    """
    environment: Any = shape_environment(program)
    before = dict(program.range_constraints)
    for key, promised in before.items() if environment is not None else ():
        (symbol,) = key.free_symbols if len(key.free_symbols) == 1 else (None,)
        known = environment.var_to_range.get(symbol)
        if known is None or symbol in environment.replacements:
            continue
        # a dimension in steps is promised from 2 as a symbol, and from 1 step as what is made of it
        if promised.lower <= key.subs(symbol, 2) and promised.upper == key.subs(symbol, 2):
            program.range_constraints[key] = ValueRanges(promised.lower, key.subs(symbol, ROOM))
            environment.var_to_range[symbol] = ValueRanges(known.lower, sympy.Integer(ROOM))
    try:
        yield
    finally:
        program.range_constraints.update(before)
