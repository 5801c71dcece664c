"""What commands print: tables where a terminal shows them and rich is installed, plain text everywhere else.

What goes into a pipe or a file is the plain text, which stays the same whatever is installed. JSON is ASCII, so that it
is valid whatever code page a console or a pipe has.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.description import Description, Section, as_text, printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_json", "show", "survive_code_pages"]

_NARROWEST = 20


def survive_code_pages() -> None:
    """Let standard output and error show what their code page lacks as escapes, rather than end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(value: Any) -> None:
    """Print ``value`` as JSON to standard output, in ASCII."""
    print(json.dumps(value, indent=2))


def show(description: Description) -> None:
    """Print ``description`` to standard output."""
    console = _console()
    if console is None:
        print(as_text(description))
    else:
        _show_tables(console, description)


def _console() -> Console | None:
    """A console where tables can be shown; ``None`` where text is what is wanted."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return None
    try:
        from rich.console import Console
    except ImportError:  # the package has no dependencies; rich comes with the extras
        return None
    return Console(highlight=False, soft_wrap=False)


def _show_tables(console: Console, description: Description) -> None:
    from rich.text import Text

    console.print(Text(printable(description.title), style="bold", overflow="fold"))
    for section in description.sections:
        if section.title:
            style = "bold red" if section.bad else "bold cyan"
            console.print()
            console.print(Text(section.title, style=style))
        if section.heads and _natural_width(section) > console.width:
            for row in section.rows:
                console.print(Text(printable(row[0]), style="bold red" if section.bad else "bold", overflow="fold"))
                pairs = tuple((head, cell) for head, cell in zip(section.heads[1:], row[1:]) if cell)
                console.print(_table(Section("", pairs), console.width))
            continue
        console.print(_table(section, console.width))


def _natural_width(section: Section) -> int:
    """Characters that a table takes when no cell is broken into lines."""
    columns = zip(*([section.heads] if section.heads else []), *section.rows)
    return sum(max(map(len, column)) + 2 for column in columns)


def _table(section: Section, width: int) -> object:
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD if section.heads else None,
        show_header=bool(section.heads),
        show_edge=False,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    count = max(map(len, section.rows))
    for index in range(count):
        head = section.heads[index] if index < len(section.heads) else ""
        table.add_column(
            head,
            justify="right" if index in section.numbers else "left",
            # without titles the first column has them: names, which must not be cut first
            style="dim" if not section.title and index == 0 else "red" if section.bad else "",
            no_wrap=index in section.numbers and width > _NARROWEST,
            overflow="fold",
        )
    for row in section.rows:
        # as Text: what stands in brackets in a manifest is no markup
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    return Padding(table, (0, 0, 0, 2 if width > 2 * _NARROWEST else 0))
