"""What ``torch.export`` suggests where a dynamic dimension is not as free as it was declared.

The suggestions stand at the end of its message, one a line::

    Suggested fixes:
      t = 10                              the module only works for this size
      w = h                               two sizes must be equal
      t = Dim('t', min=8, max=64)         the range is narrower
      _t = Dim('_t', min=1, max=4)        only multiples, and how many
      t = 8*_t
      t = 7*_t - 2                        likewise, not counted from 0
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

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
    offset: int = 0
    """The sizes that work are so much more than multiples, or less."""

    def applied_to(self, dim: DimRange) -> DimRange | int:
        """``dim`` as far as it works: the static size, or the part of the range that is left."""
        if self.static is not None:
            return self.static
        if self.offset:
            # a range has no such steps: the size next to the one it is tuned for
            fitting = [n for n in range(dim.min, dim.max + 1) if (n - self.offset) % self.multiple_of == 0]
            return min(fitting, key=lambda n: (abs(n - dim.opt), -n)) if fitting else dim.opt
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
        return Suggestion(symbol, static, self.same_as, low, high, self.multiple_of * step, self.offset * step)

    def __str__(self) -> str:
        if self.static is not None:
            return f"tracing fixes it at {self.static}"
        if self.same_as is not None:
            return f"it must equal {self.same_as}"
        if self.offset:
            sizes = f"{self.multiple_of}*n {'+' if self.offset > 0 else '-'} {abs(self.offset)}"
            return f"a trace works for the sizes {sizes} only, and a range has no such steps"
        bounds = [f"from {self.min}" if self.min else "", f"to {self.max}" if self.max else ""]
        steps = f"multiples of {self.multiple_of}" if self.multiple_of > 1 else "sizes"
        return f"a trace works for {' '.join([steps, *(b for b in bounds if b)])} only"


def suggestions(message: str) -> tuple[Suggestion, ...]:
    """What a message of ``torch.export`` suggests; where it makes no suggestions, what follows from its complaints."""
    lines = message.partition("Suggested fixes:\n")[2].split("\n\n")[0].splitlines()
    matches = (re.fullmatch(r"\s*(\w+) = (.+)", line) for line in lines)
    assignments = {match[1]: match[2] for match in matches if match}
    return tuple(_parsed(assignments)) or tuple(_from_complaints(message))


_COMPLAINT = r"^ *- Not all values of (\w+) = (.+?) in the specified range (.+?) satisfy (.+)$"


def _from_complaints(message: str) -> Iterator[Suggestion]:
    """The part of each range in which all that the message complains of holds, if that is a range or steps."""
    guards: dict[str, list[tuple[range, Callable[[int], bool]] | None]] = {}
    for symbol, *complaint in re.findall(_COMPLAINT, message, re.M):
        guards.setdefault(symbol, []).append(_condition(*complaint))
    for symbol, checked in guards.items():
        conditions = [one for one in checked if one is not None]
        if len(conditions) < len(checked):
            continue
        sizes = conditions[0][0]
        found = [n for n in sizes if all(holds(n) for _, holds in conditions)]
        steps = {after - before for before, after in pairwise(found)}
        if len(found) == 1:
            yield Suggestion(symbol, static=found[0])
        elif len(steps) == 1:
            step = steps.pop()
            low = found[0] if step == 1 and found[0] != sizes[0] else None
            high = found[-1] if step == 1 and found[-1] != sizes[-1] else None
            yield Suggestion(symbol, min=low, max=high, multiple_of=step, offset=found[0] % step)
        elif run := _longest_run(found):
            yield Suggestion(symbol, min=run[0], max=run[-1])


def _longest_run(sizes: list[int]) -> list[int]:
    """The most consecutive numbers of an ascending list; none where no two of them are consecutive."""
    runs: list[list[int]] = [[]]
    for size in sizes:
        if runs[-1] and size != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(size)
    longest = max(runs, key=len)
    return longest if len(longest) > 1 else []


def only_truisms(message: str) -> bool:
    """Whether all that the message complains of holds for every size of the ranges, which PyTorch could not see.

    Older PyTorch (2.12) does not know that ``min(x, 4*x) == x`` for sizes, and calls it a violated constraint.
    """
    found = re.findall(_COMPLAINT, message, re.M)
    complaints = re.findall(r"^ *- ", message, re.M)
    checked = [_condition(*complaint) for _, *complaint in found]
    if not found or len(found) != len(complaints):
        return False
    return all(one is not None and all(map(one[1], one[0])) for one in checked)


_FUNCTIONS: dict[str, Callable[..., float]] = {
    **{function.__name__: function for function in (min, max, float, int)},
    **{function.__name__: function for function in (math.trunc, math.floor, math.ceil)},
}
"""What guards call, ``torch.sym_min`` and ``math.trunc`` among them, by its name without the module."""


def _condition(dimension: str, bounds: str, guard: str) -> tuple[range, Callable[[int], bool]] | None:
    """The sizes of a range, and whether a guard holds for one of them; ``None`` where that cannot be told."""
    numbers = re.fullmatch(r"(?:(\d+) <= )?\w+ <= (\d+)", bounds)
    condition = guard.removeprefix("the generated guard ").rstrip(".").replace(dimension, "n")
    condition = re.sub(r"\b(?:torch\.sym_|math\.)(?=[a-z]+\()", "", condition)
    words = set(re.findall(r"[^\W\d]\w*", condition))
    # sizes beyond a million are not tried one by one
    if (
        not numbers
        or int(numbers[2]) > 1 << 20
        or not words <= {"n", *_FUNCTIONS}
        or re.search(r"[^\w\s+*/%()<>=!,-]", re.sub(r"\d\.\d", "", condition))
    ):
        return None
    code = compile(condition.strip(), "guard", "eval")
    allowed = {"__builtins__": {}, **_FUNCTIONS}

    def holds(n: int) -> bool:
        try:
            # nothing but numbers, operators and these functions: see above
            return bool(eval(code, {**allowed, "n": n}))
        except (TypeError, ZeroDivisionError):
            return False

    # torch.export writes a range from 2 without its lower end
    return range(int(numbers[1] or 2), int(numbers[2]) + 1), holds


def _parsed(assignments: dict[str, str]) -> Iterator[Suggestion]:
    used = {match[2] for value in assignments.values() if (match := re.fullmatch(_STEPS, value)) and match[1]}
    for symbol, value in assignments.items():
        if symbol in used:
            continue
        if value.isdigit():
            yield Suggestion(symbol, static=int(value))
        elif value.isidentifier():
            yield Suggestion(symbol, same_as=value)
        elif match := re.fullmatch(_STEPS, value):
            step, offset = int(match[1] or 1), int(f"{match[3]}{match[4]}" if match[3] else 0)
            low, high = (n if n is None else n * step + offset for n in _bounds(assignments.get(match[2], "")))
            yield Suggestion(symbol, min=low, max=high, multiple_of=step, offset=offset if step > 1 else 0)
        elif value.startswith("Dim("):
            low, high = _bounds(value)
            yield Suggestion(symbol, min=low, max=high)


_STEPS = r"(?:(\d+)\*)?(\w+)(?: ([+-]) (\d+))?"
"""``8*_t``, ``7*_t - 2``, ``_t + 1``."""


def _bounds(dim: str) -> tuple[int | None, int | None]:
    low, high = (re.search(rf"{bound}=(\d+)", dim) for bound in ("min", "max"))
    return (int(low[1]) if low else None), (int(high[1]) if high else None)
