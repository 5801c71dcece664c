"""What all tests share: the versions they ran with, and which of them run on Windows."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from support.windows_half import runs_on_windows

__all__ = ["pytest_collection_modifyitems", "pytest_ignore_collect", "pytest_report_header"]

LONG = {"test_guard.py", "test_live.py", "test_cli.py", "test_job.py", "test_process.py", "test_windows_attention.py"}
"""Files whose tests take more than a minute together."""
UPSTREAM = ("torch", "torch-tensorrt-rtx", "torch-tensorrt", "tensorrt-rtx", "tensorrt", "lightning")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name what was tested against, in every log."""
    return [
        f"upstream: {', '.join(f'{name} {installed(name)}' for name in UPSTREAM if installed(name))}",
        f"machine: {platform.system()} {platform.machine()}, Python {platform.python_version()}",
    ]


def installed(distribution: str) -> str | None:
    """Version of a distribution, ``None`` where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """On Windows, leave out the tests of the half that trains and exports."""
    return True if sys.platform == "win32" and not runs_on_windows(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, or one process would be left with the last of them.

    On Windows, skip tests that are marked ``linux``, with the reason that the mark gives.
    """
    items.sort(key=lambda item: item.path.name not in LONG)  # stable: within a file the order stays
    if sys.platform == "win32":
        for item in items:
            for mark in item.iter_markers("linux"):
                item.add_marker(pytest.mark.skip(reason=f"Linux only: {mark.args[0]}"))
