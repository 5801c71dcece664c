"""Which tests run on Windows: those of the half that a PC runs."""

from __future__ import annotations

from pathlib import Path

from support.paths import TESTS

__all__ = ["runs_on_windows"]

FOLDERS = ("artifact", "bundle", "cli", "data", "runtime", "support", "verification", "windows")
FILES = ("conftest.py", "test_errors.py", "test_imports.py", "test_settings.py")
"""Beside the folders."""


def runs_on_windows(path: Path) -> bool:
    """Whether a file or folder below ``tests/`` is about what a PC does, rather than training or exporting."""
    parts = path.relative_to(TESTS).parts
    return not parts or parts[0] in FOLDERS or parts[0] in FILES
