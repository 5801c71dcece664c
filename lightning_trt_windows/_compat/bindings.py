"""The one door to TensorRT's Python bindings on the machine that runs an artifact; nothing here compiles."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = [
    "DISTRIBUTIONS",
    "bindings",
    "installed_bindings",
    "installed_bindings_name",
    "installed_version",
    "lean_runtime",
]

DISTRIBUTIONS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}
"""Backend name, which is the name of the module too, to distribution."""

_FOR_CUDA = ("", "-cu13", "-cu12")
"""Endings of the distribution's name, of which one is installed; torch-tensorrt 2.14 brings the second only."""


def bindings(backend: str) -> Any:
    """The module ``tensorrt_rtx`` or ``tensorrt``.

    Raises:
        EnvironmentMismatchError: It does not import; its own reason is in the message and chained.
    """
    distribution = DISTRIBUTIONS[backend]
    try:
        return importlib.import_module(backend)
    # a missing DLL is an OSError or an ImportError, and the wheels raise RuntimeError for what they check themselves
    except (ImportError, OSError, RuntimeError) as error:
        raise EnvironmentMismatchError(
            f"{distribution} does not import: {error}. Install it again: pip install --force-reinstall {distribution}"
        ) from error


def installed_bindings(backend: str) -> str | None:
    """Version of the installed distribution of a backend's bindings; ``None`` where there is none."""
    name = installed_bindings_name(backend)
    return installed_version(name) if name else None


def installed_bindings_name(backend: str) -> str | None:
    """What the installed distribution of a backend's bindings is called, ``tensorrt-cu13`` for one; or ``None``."""
    if backend not in DISTRIBUTIONS:  # of a newer version of this package, or of nobody's
        return None
    return next((name for ending in _FOR_CUDA if installed_version(name := DISTRIBUTIONS[backend] + ending)), None)


def lean_runtime(version: str) -> str | None:
    """TensorRT's lean runtime of exactly ``version``, a library; ``None`` where it is not installed.

    It runs engines that were built ``version_compatible`` with that version beside a newer TensorRT. NVIDIA's wheel
    ``tensorrt-lean-cu13-libs`` brings it. Not one that has been seen: see ``docs/tensorrt.md``.
    """
    if version not in [installed_version(f"tensorrt-lean{ending}-libs") for ending in _FOR_CUDA]:
        return None
    found = importlib.util.find_spec("tensorrt_lean_libs")
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    libraries = [file for folder in folders for file in sorted(folder.glob("*nvinfer_lean*"))]
    return str(libraries[0]) if libraries else None


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution; ``None`` where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
