"""Files elsewhere: ``s3://``, ``gs://``, ``memory://`` and whatever else fsspec knows.

What a network refuses once is tried again. At import the standard library only; fsspec, which Lightning and PyTorch
bring, is imported when there is a URL.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from lightning_trt_windows.artifact.files import TEMPORARY_PREFIX, replacing
from lightning_trt_windows.errors import CheckpointError, ConfigurationError

__all__ = [
    "PAUSES",
    "RemoteFile",
    "download_checkpoint",
    "is_remote",
    "place_of",
    "staging_directory",
    "temporary_directory",
]

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts, of which there is one more."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://|::)")
_COLLAPSED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")
"""What ``pathlib.Path`` makes of a URL."""
_LOCAL = ("file", "local")
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "hf", "memory")
"""Have no directories that would have to be made first; making one may make a bucket."""
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    NotImplementedError,
    TypeError,
)
"""What would be answered the next time as well."""

_T = TypeVar("_T")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a URL that this machine's own file system does not answer."""
    found = _SCHEME.match(os.fspath(path))
    return found is not None and found[1].lower() not in _LOCAL


def place_of(path: str | os.PathLike[str] | RemoteFile) -> Path | RemoteFile:
    """Where ``path`` is: a file of this machine, also where it is written ``file://``, or one elsewhere.

    Returns:
        A path of this machine, or a file elsewhere.

    Raises:
        ConfigurationError: A URL that has gone through ``pathlib.Path``, which took a slash from it.
    """
    if isinstance(path, RemoteFile):
        return path
    text = os.fspath(path)
    if is_remote(text):
        return RemoteFile(text)
    if found := _SCHEME.match(text):
        return _local_path(text[found.end() :])
    if _COLLAPSED.match(text) and not Path(text).parent.exists():
        raise ConfigurationError(f"{text} was a URL before it became a Path; give URLs as text")
    return Path(text)


def _local_path(text: str) -> Path:
    """What stands after ``file://``: on Windows ``/C:/runs`` is ``C:/runs``, and programs write spaces as ``%20``."""
    if sys.platform == "win32" and re.match("/+[A-Za-z]:", text):
        text = text.lstrip("/")
    path = Path(text)
    decoded = Path(unquote(text))
    return decoded if decoded.exists() and not path.exists() else path


def staging_directory() -> Path:
    """A new directory for files on their way; ``TMPDIR`` says on which disk. Whoever asks deletes it."""
    return Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))


@dataclass(frozen=True)
class RemoteFile:
    """A file that fsspec reaches. Methods try again where that may help.

    Every method raises ``OSError`` where the file system refuses, and ConfigurationError where nothing is installed
    that knows the protocol.
    """

    url: str

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> str:
        """URL of the directory, without a slash at its end."""
        return self.url.rstrip("/").rpartition("/")[0]

    def child(self, name: str) -> RemoteFile:
        """The file ``name`` in this directory."""
        return RemoteFile(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    def size(self) -> int | None:
        """Bytes; ``None`` where there is no such file."""

        def look(system: Any, path: str) -> int | None:
            system.invalidate_cache()  # listings of before this file was there
            info = system.info(path)
            return int(info["size"]) if info["type"] == "file" else None

        try:
            return self._on_system(look)
        except FileNotFoundError:
            return None

    def read(self) -> bytes:
        """All of it."""
        return self._on_system(lambda system, path: bytes(system.cat_file(path)))

    def write(self, data: bytes) -> None:
        """Make it be ``data``."""

        def write(system: Any, path: str) -> None:
            self._make_parent(system, path)
            system.pipe_file(path, data)

        self._on_system(write)

    def upload(self, source: Path) -> None:
        """Make it a copy of ``source``, and see that it has arrived.

        Raises:
            OSError: The file system refuses it, or fewer bytes have arrived than were sent.
        """
        size = source.stat().st_size

        def put(system: Any, path: str) -> None:
            self._make_parent(system, path)
            system.put_file(str(source), path)
            system.invalidate_cache()
            if (found := system.info(path)["size"]) != size:
                raise OSError(f"{found} bytes have arrived of {size}")

        self._on_system(put)

    def download(self, to: Path) -> None:
        """Copy it to ``to``, which appears whole or not at all."""
        with replacing(to) as temporary:
            self._on_system(lambda system, path: system.get_file(path, str(temporary)))

    def remove(self) -> bool:
        """Delete it; whether it was there."""
        try:
            self._on_system(lambda system, path: system.rm_file(path))
        except FileNotFoundError:
            return False
        return True

    def children(self, suffix: str) -> list[RemoteFile]:
        """Files of this directory whose names end in ``suffix``, by name; none where there is no directory."""

        def look(system: Any, path: str) -> list[str]:
            system.invalidate_cache()
            return [str(entry["name"]) for entry in system.ls(path, detail=True) if entry["type"] == "file"]

        try:
            names = {name.rpartition("/")[2] for name in self._on_system(look)}
        except FileNotFoundError:
            return []
        return [self.child(name) for name in sorted(names) if name.endswith(suffix)]

    def below(self, suffix: str) -> list[RemoteFile]:
        """Files of this directory and of those in it whose names end in ``suffix``."""

        def look(system: Any, path: str) -> list[str]:
            system.invalidate_cache()
            return [system.unstrip_protocol(name) for name in system.find(path) if name.endswith(suffix)]

        return [RemoteFile(url) for url in self._on_system(look)]

    def folders_below(self, directory: RemoteFile) -> list[str]:
        """Names of the folders that lead from ``directory`` to this file, which is below it."""
        # a file system may write its own URLs with more slashes than were given to it
        path, above = (_system(file.url)[1].rstrip("/") for file in (self, directory))
        return path.removeprefix(above).strip("/").split("/")[:-1]

    def matching(self) -> list[RemoteFile]:
        """Files that this is a pattern of, with ``*``, ``?`` and ``**``, by name."""
        return self._on_system(
            lambda system, path: [RemoteFile(system.unstrip_protocol(name)) for name in sorted(system.glob(path))]
        )

    def is_directory(self) -> bool:
        """Whether there are files below it."""
        return self._on_system(lambda system, path: bool(system.isdir(path)))

    def _make_parent(self, system: Any, path: str) -> None:
        found = _SCHEME.match(self.url)
        if found and found[1].lower() not in _OBJECT_STORES:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _on_system(self, action: Callable[[Any, str], _T]) -> _T:
        system, path = _system(self.url)
        for pause in (*PAUSES, None):
            try:
                return action(system, path)
            except _FINAL:
                raise
            # each file system has exceptions of its own; most are not OSErrors
            except Exception as error:
                if pause is None:
                    attempts = f"{len(PAUSES) + 1} attempts"
                    raise OSError(f"{type(error).__name__}: {error} ({attempts})") from error
            time.sleep(pause)
        raise AssertionError("unreachable")


def _system(url: str) -> tuple[Any, str]:
    import fsspec.core

    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]  # it has no types
    except (ImportError, ValueError) as error:
        extra = ', pip install "lightning-trt-windows[s3]",' if url.startswith(("s3:", "s3a:")) else ""
        raise ConfigurationError(
            f"{url}: {error}; install what fsspec needs for it{extra} or check its spelling"
        ) from error


def temporary_directory() -> Path:
    """A new directory that is deleted when the process ends."""
    directory = staging_directory()
    atexit.register(functools.partial(shutil.rmtree, directory, ignore_errors=True))
    return directory


def download_checkpoint(checkpoint: RemoteFile, directory: Path) -> Path:
    """Copy a checkpoint into ``directory``.

    Returns:
        The copy.

    Raises:
        CheckpointError: The checkpoint does not exist or cannot be read.
    """
    path = directory / checkpoint.name
    try:
        checkpoint.download(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {checkpoint}") from error
    except OSError as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {error}") from error
    return path
