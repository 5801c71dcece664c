"""Sizes in two dimensions, such as height by width: the range as an area, and the shapes that were seen in it.

Standard library only. Positions are percentages across and pixels down, as in ``charts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from lightning_trt_windows.artifact.manifest import InputRecord

__all__ = ["Area", "area_figure", "area_of"]

_LEFT, _RIGHT = 12.0, 96.0
"""Percent of the width between which sizes are drawn; to the left stand the numbers of the first dimension."""
_TOP, _BOTTOM = 14, 204
"""Pixels between which they are drawn."""
_SMALLEST, _LARGEST = 3.0, 9.0
"""Radius, in pixels, of a shape that was seen once, and of the most frequent one."""


@dataclass(frozen=True)
class Area:
    """Two dimensions of an input that vary."""

    names: tuple[str, str]
    """What they are called; the first is drawn upwards, the second across."""
    low: tuple[int, int]
    opt: tuple[int, int]
    high: tuple[int, int]
    seen: Mapping[tuple[int, int], int]
    """How often each pair was seen."""


def area_of(record: InputRecord) -> Area | None:
    """The last two axes of an input, where both vary, each by itself, and whole shapes of it were recorded."""
    first, second = record.symbols[-2:] if len(record.symbols) > 1 else (None, None)
    if first is None or second is None or first == second or not record.source.shapes:
        return None
    seen: dict[tuple[int, int], int] = {}
    for shape, count in record.source.shapes.items():
        *_, height, width = map(int, shape.split("x"))
        seen[height, width] = seen.get((height, width), 0) + count

    def last(sizes: Sequence[int]) -> tuple[int, int]:
        return sizes[-2], sizes[-1]

    return Area((first, second), last(record.min), last(record.opt), last(record.max), seen)


def area_figure(area: Area, number: int, of: str) -> str:
    """An area from the smallest to the largest sizes, a cross where it is tuned for, a dot for each shape seen.

    Args:
        area: What is drawn.
        number: Of the figure.
        of: Name of the input.

    Returns:
        The HTML, with the drawing as SVG.
    """
    ends = [
        (min(area.low[i], *(s[i] for s in area.seen)), max(area.high[i], *(s[i] for s in area.seen))) for i in (0, 1)
    ]

    def share(axis: int, size: float) -> float:
        least, most = ends[axis]
        return (size - least) / (most - least) if most > least else 0.5

    def x_at(size: float) -> float:
        return _LEFT + share(1, size) * (_RIGHT - _LEFT)

    def y_at(size: float) -> float:
        return _BOTTOM - share(0, size) * (_BOTTOM - _TOP)

    outside = {s for s in area.seen if any(not area.low[i] <= s[i] <= area.high[i] for i in (0, 1))}
    most = max(area.seen.values())
    dots = []
    # small ones last, so that large ones do not hide them
    for size, count in sorted(area.seen.items(), key=lambda item: (-item[1], item[0])):
        radius = _SMALLEST + (_LARGEST - _SMALLEST) * (math.sqrt(count / most) if most > 1 else 0)
        kind = "outside" if size in outside else "seen-dot"
        dots.append(
            f'<circle class="{kind}" cx="{x_at(size[1]):.2f}%" cy="{y_at(size[0]):.1f}" r="{radius:.1f}">'
            f"<title>{_pair(area, size)}: seen {count} time{'' if count == 1 else 's'}</title></circle>"
        )
    left, right, top, bottom = x_at(area.low[1]), x_at(area.high[1]), y_at(area.high[0]), y_at(area.low[0])
    opt_x, opt_y = x_at(area.opt[1]), y_at(area.opt[0])
    cross = (
        f'<line class="opt" x1="{opt_x:.2f}%" x2="{opt_x:.2f}%" y1="{opt_y - 8:.1f}" y2="{opt_y + 8:.1f}"/>'
        f'<svg x="{opt_x:.2f}%" y="{opt_y:.1f}" overflow="visible">'
        '<line class="opt" x1="-8" x2="8" y1="0" y2="0"/></svg>'
    )
    down = "".join(
        f'<text x="{_LEFT - 1.5}%" y="{y_at(size) + 4:.1f}" text-anchor="end">{size}</text>' for size in set(ends[0])
    )
    across = "".join(
        f'<text x="{x_at(size):.2f}%" y="{_BOTTOM + 20}" text-anchor="middle">{size}</text>' for size in set(ends[1])
    )
    told = f"{len(area.seen)} shape{'' if len(area.seen) == 1 else 's'} seen"
    told += f", {len(outside)} of them outside the range" if outside else ", all within the range"
    return (
        f'<figure><figcaption id="figure-{number}"><strong>{escape(" by ".join(area.names))}</strong> '
        f"{_pair(area, area.low)} to {_pair(area, area.high)}, tuned for {_pair(area, area.opt)} · {escape(of)}<br>"
        f"{told}</figcaption>"
        f'<svg class="plane" role="img" aria-labelledby="figure-{number}" style="height:{_BOTTOM + 26}px">'
        f'<rect class="frame" x="{_LEFT}%" y="{_TOP}" width="{_RIGHT - _LEFT}%" height="{_BOTTOM - _TOP}"/>'
        f'<rect class="band" x="{left:.2f}%" y="{top:.1f}" width="{max(right - left, 0.4):.2f}%" '
        f'height="{max(bottom - top, 2):.1f}"/>{"".join(dots)}{cross}{down}{across}</svg></figure>'
    )


def _pair(area: Area, sizes: tuple[int, int]) -> str:
    return f"{sizes[0]} × {sizes[1]}"  # noqa: RUF001 -- the sign that people read
