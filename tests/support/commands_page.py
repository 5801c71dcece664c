"""``docs/commands.md``, from the commands' own parser; run as a program, it writes the page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from lightning_trt_windows import errors
from lightning_trt_windows.cli import CUT_OFF, make_parser

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"

HEAD = """\
# Commands

<!-- written by tests/support/commands_page.py from the commands' own help -->

`lightning-trt-windows COMMAND`, or `python -m lightning_trt_windows COMMAND`. Each takes `--help`, and `--traceback`,
which shows where in the code an error comes from, and all its causes. Results go to standard output, everything else to
standard error.

"""


def page() -> str:
    """The page as it should be."""
    return HEAD + exit_codes() + "".join(section(name, parser) for name, parser in commands())


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command with its parser."""
    for action in make_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def exit_codes() -> str:
    """A row for each class of error."""
    rows = ["| Exit code | |", "| --- | --- |", "| 0 | done |", "| 1 | a fault in this package or in your code |"]
    kinds = (kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type))
    for kind in sorted(kinds, key=lambda kind: int(kind.exit_code)):
        says = (kind.__doc__ or "").splitlines()[0].replace("``", "`")
        if kind.exit_code > 1:
            rows.append(f"| {kind.exit_code} | `{kind.__name__}`: {says.strip().rstrip('.')} |")
    rows.append(f"| {CUT_OFF} | the program that read the output ended first, as `head` does |")
    return "\n".join(rows) + "\n"


def section(name: str, parser: argparse.ArgumentParser) -> str:
    """What a command does, its arguments and options."""
    rows = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or {"-h", "--traceback"} & set(action.option_strings):
            continue
        shown = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
        value = ""
        if action.option_strings and action.nargs != 0:
            choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
            metavar = action.metavar if isinstance(action.metavar, str) else choices
            value = f" {metavar}"
        text = (action.help or "") % {"default": action.default, "prog": parser.prog, "dest": action.dest}
        rows.append(f"| `{shown}{value}` | {text.replace('|', chr(92) + '|')} |")
    lines = [f"\n## {name}\n", (parser.description or "").strip(), "", "| | |", "| --- | --- |", *rows]
    if parser.epilog:
        lines += ["", "```text", parser.epilog.strip(), "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
