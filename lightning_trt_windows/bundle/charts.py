"""Charts of the report: errors against what is allowed, latency over the batch, scores over steps.

Standard library only. Positions are percentages across and pixels down, as in ``figures``. Every chart says in words
what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

__all__ = ["Error", "Line", "error_figure", "line_figure"]

_LEFT, _RIGHT = 9.0, 97.0
"""Percent of the width between which things are drawn; to the left stand the numbers of the vertical axis."""
_TOP, _BOTTOM = 12, 150
"""Pixels between which lines are drawn."""
_EXACT = 1e-9
"""Errors below are drawn as this one, zero too."""
_ROW = 40
"""Pixels of an error's row: its name, and below it the line with the dot."""


@dataclass(frozen=True)
class Error:
    """One comparison."""

    name: str
    """What was compared, and at which sizes."""
    value: float
    """Relative norm of the difference."""
    allowed: float | None = None
    """The largest that passes, where it is known."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: Mapping[float, float]
    """Value by position; at least one."""
    kind: str = "one"
    """Its colour: ``one`` for engines, ``two`` for PyTorch, ``three`` for others, ``data`` for the training."""


def error_figure(caption: str, errors: Sequence[Error], number: int) -> str:
    """A dot for each error on a logarithmic scale, with a mark where the tolerance is."""
    largest = max(1.0, *(max(e.value, e.allowed or 0.0) for e in errors if math.isfinite(e.value)))
    low, high = math.log10(_EXACT), math.ceil(math.log10(largest))
    start = 3.0

    def at(value: float) -> str:
        value = math.inf if math.isnan(value) else value
        share = (math.log10(min(max(value, _EXACT), 10.0**high)) - low) / (high - low)
        return f"{start + share * (_RIGHT - start):.2f}%"

    height = len(errors) * _ROW + 24
    parts = []
    for row, error in enumerate(errors):
        y = row * _ROW + _ROW - 12
        failed = error.allowed is not None and not error.value <= error.allowed
        said = f"{error.name}: relative error {error.value:.2g}"
        if error.allowed is not None:
            said += f", allowed {error.allowed:.2g}"
            parts.append(
                f'<line class="allowed" x1="{at(error.allowed)}" x2="{at(error.allowed)}" y1="{y - 9}" y2="{y + 9}"/>'
            )
        parts.append(
            f'<line class="rail" x1="{start}%" x2="{_RIGHT}%" y1="{y}" y2="{y}"/>'
            f'<text x="0" y="{y - 12}">{escape(_cut(error.name))}</text>'
            f'<circle class="{"outside" if failed else "dot"}" cx="{at(error.value)}" cy="{y}" r="5">'
            f"<title>{escape(said)}</title></circle>"
        )
    ticks = "".join(
        f'<text x="{at(10.0**power)}" y="{height - 4}" text-anchor="middle">1e{power}</text>'
        for power in range(int(low), int(high) + 1, 2)
    )
    return _figure(caption, number, height, "".join(parts) + ticks)


def line_figure(caption: str, lines: Sequence[Line], number: int, *, across: str, unit: str, logarithmic: bool) -> str:
    """Lines over one quantity.

    Args:
        caption: HTML.
        lines: Each of a colour of its own.
        number: Of the figure.
        across: What lies across.
        unit: Of the values.
        logarithmic: Whether positions across double from tick to tick, as batches do.

    Returns:
        The HTML, with the drawing as SVG.
    """
    positions = sorted({x for line in lines for x in line.points})
    values = [value for line in lines for value in line.points.values()]
    bottom, top = _round(min(values), max(values))

    def x_at(position: float) -> float:
        first, last, here = (math.log2(p) if logarithmic else p for p in (positions[0], positions[-1], position))
        return _LEFT + ((here - first) / (last - first) if last > first else 0.5) * (_RIGHT - _LEFT)

    def y_at(value: float) -> float:
        return _BOTTOM - (value - bottom) / (top - bottom) * (_BOTTOM - _TOP)

    parts = []
    for share in (0.0, 0.5, 1.0):
        value = bottom + share * (top - bottom)
        parts.append(
            f'<line class="rail" x1="{_LEFT}%" x2="{_RIGHT}%" y1="{y_at(value):.1f}" y2="{y_at(value):.1f}"/>'
            f'<text x="{_LEFT - 1}%" y="{y_at(value) + 4:.1f}" text-anchor="end">{_short(value)}</text>'
        )
    for line in lines:
        kind, ordered = line.kind, sorted(line.points.items())
        for (x1, y1), (x2, y2) in pairwise(ordered):
            parts.append(
                f'<line class="{kind}-line" x1="{x_at(x1):.2f}%" x2="{x_at(x2):.2f}%" y1="{y_at(y1):.1f}" '
                f'y2="{y_at(y2):.1f}"/>'
            )
        for x, y in ordered:
            said = f"{line.name}: {y:.4g} {unit} at {across} {x:g}"
            parts.append(
                f'<circle class="{kind}-dot" cx="{x_at(x):.2f}%" cy="{y_at(y):.1f}" r="4">'
                f"<title>{escape(said)}</title></circle>"
            )
    shown = positions if len(positions) <= _MOST_TICKS else [positions[0], positions[-1]]
    parts += [
        f'<text x="{x_at(position):.2f}%" y="{_BOTTOM + 18}" text-anchor="middle">{position:g}</text>'
        for position in shown
    ]
    legend = "".join(f'<li><span class="key {line.kind}"></span>{escape(line.name)}</li>' for line in lines)
    return _figure(caption, number, _BOTTOM + 24, "".join(parts)) + f'<ul class="legend">{legend}</ul>'


_MOST_TICKS = 9
"""Numbers below a chart that do not run into each other on a phone."""


_LONGEST = 46
"""Characters of a name that fit on a phone; a drawing's text does not break into lines."""


def _cut(name: str) -> str:
    """The end of a long name, which says more than its beginning: folders come first."""
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def _short(value: float) -> str:
    return f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"


def _round(least: float, most: float) -> tuple[float, float]:
    """Ends of an axis: from zero where the values are near it, as latencies are, with some room above."""
    if 0 <= least < most * 0.6:
        return 0.0, most * 1.05
    room = (most - least) * 0.1 or abs(most) * 0.1 or 1.0
    return least - room, most + room


def _figure(caption: str, number: int, height: int, drawn: str) -> str:
    return (
        f'<figure><figcaption id="figure-{number}">{caption}</figcaption>'
        f'<svg role="img" aria-labelledby="figure-{number}" style="height:{height}px">{drawn}</svg></figure>'
    )
