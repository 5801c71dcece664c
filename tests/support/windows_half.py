"""Which tests run on Windows: those of the half that a PC runs."""

from __future__ import annotations

from pathlib import Path

from support.paths import TESTS

__all__ = ["runs_on_windows"]

PLACES = (
    "artifact", "bundle", "cli", "conftest.py", "data", "onnx/test_providers.py", "runtime", "storage", "support",
    "test_errors.py", "test_imports.py", "test_settings.py", "verification", "windows",
)  # fmt: skip
"""Folders and files below ``tests/``."""
TRAINS = ("cli/test_carried.py",)
"""Files in them that train, with what a PC does not have."""


def runs_on_windows(path: Path) -> bool:
    """Whether a file or folder below ``tests/`` is about what a PC does, rather than training or exporting.

    A folder is, too, where something in it is.
    """
    here = path.relative_to(TESTS).as_posix()
    if here in TRAINS:
        return False
    return here == "." or any(
        here == place or here.startswith(f"{place}/") or place.startswith(f"{here}/") for place in PLACES
    )
