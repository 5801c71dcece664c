"""A parser that says in one line what is wrong with a command line, and what was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning_trt_windows.errors import did_you_mean

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """``argparse``'s parser without the list of all options before each error."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2, and say why."""
        self.exit(2, f"error: {message}\n{self.prog} --help shows what it takes\n")

    def parse_args(  # type: ignore[override]  # of several signatures this is the one that covers all
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse ``args``, or end the process with what is wrong with them."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            used = getattr(parsed, "parser", self)
            first = unknown[0].partition("=")[0]
            options = [option for action in used._actions for option in action.option_strings]
            hint = did_you_mean(first, options) if first.startswith("-") else ""
            used.error(f"there is no {first!r} here{hint}" if hint else f"unrecognized arguments: {' '.join(unknown)}")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name what is near; ``argparse`` lists all choices."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = did_you_mean(str(value), known, f"choose from {', '.join(known)}")
        raise argparse.ArgumentError(action, f"there is no {value!r}{hint}")
