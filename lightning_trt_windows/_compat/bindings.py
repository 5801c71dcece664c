"""The one door to TensorRT's Python bindings on the machine that runs an artifact; nothing here compiles."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = ["DISTRIBUTIONS", "bindings", "installed_version"]

DISTRIBUTIONS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}
"""Backend name, which is the name of the module too, to distribution."""


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


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution; ``None`` where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
