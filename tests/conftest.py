"""What all tests share: the versions they ran with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import pytest

__all__ = ["pytest_report_header"]

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
