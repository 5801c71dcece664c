"""Drawings of the report: ranges over the sizes that were seen, and bars of shares. Standard library only.

Positions are percentages, so that a drawing fits any width while its text keeps its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Amount", "Range", "amounts_figure", "range_figure", "shares"]

_LEFT, _RIGHT = 2.0, 98.0
"""Percent of the width between which sizes are drawn."""
_BASE, _TALLEST = 56, 44
"""Where bars stand, and how high the one of the most frequent size is, in pixels."""
_SHORTEST = 5
"""Pixels; a size that was seen once among thousands is still there."""


@dataclass(frozen=True)
class Range:
    """A dynamic dimension."""

    symbol: str
    axes: tuple[str, ...]
    """Where it occurs: ``x axis 0``."""
    low: int
    opt: int
    high: int
    step: int
    reason: str
    """The export's sentence about it."""
    sizes: Mapping[int, int]
    """How often each size was seen; empty where nothing was."""


@dataclass(frozen=True)
class Amount:
    """One bar."""

    name: str
    amount: float
    text: str
    """The amount with its unit."""
    kind: str = "one"
    """Its colour, as a class of the style sheet."""


def amounts_figure(caption: str, amounts: Sequence[Amount], number: int) -> str:
    """A bar for each amount, the longest over the whole width.

    Args:
        caption: HTML.
        amounts: At least one.
        number: Of the figure.

    Returns:
        The HTML.
    """
    most = max(amount.amount for amount in amounts) or 1.0
    rows = "".join(
        f'<div class="amount"><span class="name">{escape(a.name)}</span><span class="rail-bar">'
        f'<span class="bar {a.kind}" style="width:{max(100 * a.amount / most, 0.3):.2f}%"></span></span>'
        f'<span class="value">{escape(a.text)}</span></div>'
        for a in amounts
    )
    return f'<figure><figcaption id="figure-{number}">{caption}</figcaption><div class="amounts">{rows}</div></figure>'


def range_figure(dimension: Range, number: int) -> str:
    """A band from the smallest to the largest size, a mark at the one it is tuned for, a bar for each that was seen."""
    d = dimension
    ends = [d.low, d.high, *d.sizes]
    first, last = min(ends), max(ends)
    outside = [size for size in d.sizes if not d.low <= size <= d.high]
    most = max(d.sizes.values(), default=1)

    def at(size: int) -> str:
        share = (size - first) / (last - first) if last > first else 0.5
        return f"{_LEFT + share * (_RIGHT - _LEFT):.2f}%"

    bars = []
    for size, count in sorted(d.sizes.items()):
        kind = "outside" if size in outside else "seen"
        top = _BASE - 3 - max(_TALLEST * count / most, _SHORTEST)
        bars.append(
            f'<line class="{kind}" x1="{at(size)}" x2="{at(size)}" y1="{_BASE - 3}" y2="{top:.1f}">'
            f"<title>{size}: seen {count} times</title></line>"
        )
    width = float(at(d.high)[:-1]) - float(at(d.low)[:-1])
    told = f"{d.low} to {d.high}" if d.low < d.high else str(d.low)
    steps = f" in steps of {d.step}" if d.step > 1 else ""
    seen = _seen(d.sizes, outside)
    return (
        f'<figure><figcaption id="range-{number}"><strong>{escape(d.symbol)}</strong> {told}{steps}, tuned for {d.opt}'
        f" · {escape(', '.join(d.axes))}<br>{escape(seen)}</figcaption>"
        f'<svg role="img" aria-labelledby="range-{number}">'
        f'<rect class="track" x="{_LEFT}%" y="{_BASE + 4}" width="{_RIGHT - _LEFT}%" height="4" rx="2"/>'
        f'<rect class="band" x="{at(d.low)}" y="{_BASE}" width="{max(width, 0.4):.2f}%" height="12" rx="4"/>'
        f"{''.join(bars)}"
        f'<line class="opt" x1="{at(d.opt)}" x2="{at(d.opt)}" y1="{_BASE - 2}" y2="{_BASE + 14}"/>'
        f'<text x="{_LEFT}%" y="{_BASE + 31}">{first}</text>'
        f'<text x="{_RIGHT}%" y="{_BASE + 31}" text-anchor="end">{last}</text></svg>'
        + (f'<p class="soft">{escape(d.reason)}</p>' if d.reason else "")
        + "</figure>"
    )


def _seen(sizes: Mapping[int, int], outside: Sequence[int]) -> str:
    if not sizes:
        return "No sizes were recorded."
    count, calls = len(sizes), sum(sizes.values())
    text = f"{count} size{'' if count == 1 else 's'} seen, {calls} time{'' if calls == 1 else 's'} in all"
    return f"{text}; outside the range: {', '.join(map(str, sorted(outside)[:5]))}" if outside else text


def shares(label: str, parts: Sequence[tuple[str, float, str]], kinds: Sequence[str] = ("one", "two", "three")) -> str:
    """A bar divided among ``parts``, each with its name, its amount and the text for the legend.

    Args:
        label: What is divided.
        parts: At most as many as there are ``kinds``.
        kinds: Their colours, as classes of the style sheet.

    Returns:
        The HTML.
    """
    bar = "".join(
        f'<span class="{kind}" style="flex:{amount:g}" title="{escape(name)}: {escape(text)}"></span>'
        for kind, (name, amount, text) in zip(kinds, parts)
        if amount
    )
    legend = "".join(
        f'<li><span class="key {kind}"></span>{escape(name)}: {escape(text)}</li>'
        for kind, (name, _, text) in zip(kinds, parts)
    )
    spoken = escape(f"{label}: " + ", ".join(f"{name} {text}" for name, _, text in parts))
    return f'<div class="share" role="img" aria-label="{spoken}">{bar}</div><ul class="legend">{legend}</ul>'
