"""What TensorRT measured about kernels in earlier builds, kept per user, TensorRT version and GPU generation.

Upstream's default is one file for everybody in the temporary directory, which another user or another version may have
written; TensorRT trusts what is in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.errors import OutputError

__all__ = ["default_path", "timing_cache"]


def default_path(version: str, capability: str) -> str:
    """In the user's cache directory: ``$XDG_CACHE_HOME``, else ``~/.cache``; empty where there is no home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        return ""
    return str(home / "lightning-trt-windows" / f"timing-tensorrt-{version}-sm-{capability}.bin")


@contextlib.contextmanager
def timing_cache(config: Any, path: str) -> Iterator[None]:
    """Let a build begin with what is in ``path``, and keep there what it adds. An empty path keeps nothing.

    A cache only saves time: one that TensorRT does not take is begun anew, one that cannot be written is not.

    Args:
        config: TensorRT's ``IBuilderConfig``.
        path: The file; its directory is made.
    """
    content = b""
    with contextlib.suppress(OSError):
        content = Path(path).read_bytes() if path else b""
    cache = config.create_timing_cache(content)
    # another version's or another GPU's, or damaged
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    yield
    cache = config.get_timing_cache()
    if not path or cache is None:
        return
    with contextlib.suppress(OSError, OutputError):
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_file(path) as file:
            file.write(memoryview(cache.serialize()))
