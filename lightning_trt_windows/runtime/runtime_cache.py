"""TensorRT-RTX's runtime cache: the kernels that it compiled for this GPU, kept for the next start."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.open_elsewhere import patiently, reason_of
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["RuntimeCache"]

_log = logging.getLogger(__name__)


class RuntimeCache:
    """One cache in one file, shared by all engines of a module.

    TensorRT-RTX checks by itself whether a cache was made by this GPU, driver and version, and takes nothing from
    another one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._cache: Any = None
        self._saved = b""

    def attach(self, config: Any) -> None:
        """Let the contexts that are made from ``config`` use the cache."""
        with self._lock:
            if self._cache is None:
                self._cache = config.create_runtime_cache()
                self._read()
            config.set_runtime_cache(self._cache)

    def _read(self) -> None:
        try:
            saved = patiently(self.path.read_bytes, self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            why = reason_of(error, self.path)
            raise ConfigurationError(
                f"the runtime cache {self.path} cannot be read: {why}; name another file, or none"
            ) from error
        if saved and self._cache.deserialize(saved):
            self._saved = saved
        else:
            _log.info("%s was made by another GPU, driver or TensorRT-RTX, and is made anew", self.path)

    def save(self) -> None:
        """Write what was compiled since; nothing where that is nothing.

        Raises:
            OutputError: The file cannot be written.
        """
        with self._lock:
            memory = None if self._cache is None else self._cache.serialize()
            content = b"" if memory is None else bytes(memory)
            if content and content != self._saved:
                with atomic_file(self.path) as file:
                    file.write(content)
                self._saved = content

    def save_quietly(self) -> None:
        """Like ``save``, for the end of the process, where nobody is left to tell."""
        try:
            self.save()
        except OSError as error:
            _log.warning("the runtime cache is not kept: %s", error)
