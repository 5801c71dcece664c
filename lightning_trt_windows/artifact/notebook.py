"""A description as small tables of HTML, which notebooks show in place of text. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lightning_trt_windows.artifact.description import Description, Section, printable

__all__ = ["as_html"]


def as_html(description: Description) -> str:
    """The tables of a description; nothing in them is active, whatever a manifest holds.

    Args:
        description: What to show.

    Returns:
        HTML without styles of its own but for alignment: the notebook's light or dark theme holds.
    """
    title = f"<b>{_text(description.title)}</b>" if description.title else ""
    return title + "".join(map(_table, description.sections))


def _table(section: Section) -> str:
    caption = f"<caption style='text-align: left'>{_text(section.title)}</caption>" if section.title else ""
    heads = f"<tr>{_cells('th', section.heads, section.numbers)}</tr>" if section.heads else ""
    rows = "".join(f"<tr>{_cells('td', row, section.numbers)}</tr>" for row in section.rows)
    return f"<table>{caption}{heads}{rows}</table>"


def _cells(tag: str, row: Sequence[str], numbers: Sequence[int]) -> str:
    sides = ("right" if index in numbers else "left" for index in range(len(row)))
    return "".join(f"<{tag} style='text-align: {side}'>{_text(cell)}</{tag}>" for cell, side in zip(row, sides))


def _text(text: str) -> str:
    return escape(printable(text))
