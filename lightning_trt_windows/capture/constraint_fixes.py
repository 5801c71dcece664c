"""What ``torch.export`` suggests where a dynamic dimension is not as free as it was declared.

The suggestions stand at the end of its message, one a line::

    Suggested fixes:
      t = 10                              the module only works for this size
      w = h                               two sizes must be equal
      t = Dim('t', min=8, max=64)         the range is narrower
      _t = Dim('_t', min=1, max=4)        only multiples, and how many
      t = 8*_t
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_trt_windows.artifact.shapes import DimRange

__all__ = ["Suggestion", "only_truisms", "suggestions"]


@dataclass(frozen=True)
class Suggestion:
    """How one dimension would have to be declared."""

    symbol: str
    """Name of the dimension."""
    static: int | None = None
    """The one size that works."""
    same_as: str | None = None
    """Name of the dimension whose size it must have."""
    min: int | None = None
    """Smallest size that works, where the declared one does not."""
    max: int | None = None
    """Largest size that works, where the declared one does not."""
    multiple_of: int = 1
    """Only multiples of this work."""

    def applied_to(self, dim: DimRange) -> DimRange | int:
        """``dim`` as far as it works: the static size, or the part of the range that is left."""
        if self.static is not None:
            return self.static
        step = math.lcm(self.multiple_of, dim.multiple_of)
        low = -(-max(dim.min, self.min or 1) // step) * step
        high = min(dim.max, self.max or dim.max) // step * step
        if low >= high:
            return max(low, step)
        opt = min(max(round(dim.opt / step) * step, low), high)
        return DimRange(low, opt, high, dim.name, step)

    def scaled(self, step: int, symbol: str) -> Suggestion:
        """The same for ``symbol``, whose sizes are ``step`` times the numbers of this one."""
        numbers = (n if n is None else n * step for n in (self.static, self.min, self.max))
        static, low, high = numbers
        return Suggestion(symbol, static, self.same_as, low, high, self.multiple_of * step)

    def __str__(self) -> str:
        if self.static is not None:
            return f"the module works for the size {self.static} only"
        if self.same_as is not None:
            return f"it must equal {self.same_as}"
        bounds = [f"from {self.min}" if self.min else "", f"to {self.max}" if self.max else ""]
        steps = f"multiples of {self.multiple_of}" if self.multiple_of > 1 else "sizes"
        return f"the module works for {' '.join([steps, *(b for b in bounds if b)])} only"


def suggestions(message: str) -> tuple[Suggestion, ...]:
    """Parse the suggestions in a message of ``torch.export``; none where it makes none."""
    lines = message.partition("Suggested fixes:\n")[2].split("\n\n")[0].splitlines()
    matches = (re.fullmatch(r"\s*(\w+) = (.+)", line) for line in lines)
    assignments = {match[1]: match[2] for match in matches if match}
    return tuple(_parsed(assignments))


def only_truisms(message: str) -> bool:
    """Whether all that the message complains of holds for every size of the ranges, which PyTorch could not see.

    Older PyTorch (2.12) does not know that ``min(x, 4*x) == x`` for sizes, and calls it a violated constraint.
    """
    found = re.findall(r"^ *- Not all values of \w+ = (.+?) in the specified range (.+?) satisfy (.+)$", message, re.M)
    complaints = re.findall(r"^ *- ", message, re.M)
    return bool(found) and len(found) == len(complaints) and all(_always(*complaint) for complaint in found)


def _always(dimension: str, bounds: str, guard: str) -> bool:
    numbers = re.fullmatch(r"(\d+) <= \w+ <= (\d+)", bounds)
    condition = guard.removeprefix("the generated guard ").rstrip(".").replace(dimension, "n")
    words = set(re.findall(r"[^\W\d]\w*", condition))
    # sizes beyond a million are not tried one by one
    if (
        not numbers
        or int(numbers[2]) > 1 << 20
        or not words <= {"n", "min", "max"}
        or re.search(r"[^\w\s+*/%()<>=,-]", condition)
    ):
        return False
    code = compile(condition.strip(), "guard", "eval")
    allowed = {"__builtins__": {}, "min": min, "max": max}
    try:
        # nothing but numbers, operators, min and max: see above
        return all(eval(code, {**allowed, "n": n}) for n in range(int(numbers[1]), int(numbers[2]) + 1))
    except (TypeError, ZeroDivisionError):
        return False


def _parsed(assignments: dict[str, str]) -> Iterator[Suggestion]:
    used = {match[2] for value in assignments.values() if (match := re.fullmatch(r"(\d+)\*(\w+)", value))}
    for symbol, value in assignments.items():
        if symbol in used:
            continue
        if value.isdigit():
            yield Suggestion(symbol, static=int(value))
        elif value.isidentifier():
            yield Suggestion(symbol, same_as=value)
        elif match := re.fullmatch(r"(\d+)\*(\w+)", value):
            step = int(match[1])
            low, high = _bounds(assignments.get(match[2], ""))
            yield Suggestion(symbol, None, None, low and low * step, high and high * step, step)
        elif value.startswith("Dim("):
            low, high = _bounds(value)
            yield Suggestion(symbol, min=low, max=high)


def _bounds(dim: str) -> tuple[int | None, int | None]:
    low, high = (re.search(rf"{bound}=(\d+)", dim) for bound in ("min", "max"))
    return (int(low[1]) if low else None), (int(high[1]) if high else None)
