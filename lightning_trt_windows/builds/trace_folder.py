"""Where captured programs are kept while a run lives, and what becomes of those of runs that were killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from lightning_trt_windows.artifact.files import TEMPORARY_PREFIX, output_errors, temporary_name

__all__ = ["STALE_AFTER", "TraceFolder", "sweep"]

STALE_AFTER = 24 * 3600.0
"""Seconds after which a temporary file that nobody has written to is what a killed process left, unless it is held."""
_LOCK = "in-use"


class TraceFolder:
    """A temporary directory that ``sweep`` leaves alone while this process lives, however long that is.

    The operating system lets go of the lock when the process ends, in whatever way. Where a file system has no locks,
    the directory's age decides, and ``touch`` keeps it young.

    Args:
        parent: Where it is made.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        self.path = parent / temporary_name(".traces")
        with output_errors(self.path, 0):
            self.path.mkdir()
            self._lock: int | None = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        _lock(self._lock)

    def touch(self) -> None:
        """Make it young."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def close(self) -> None:
        """Delete it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
        shutil.rmtree(self.path, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    """Whether the lock is ours now; ``True`` as well where there are no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def _is_held(path: Path) -> bool:
    """Whether the process that made the directory at ``path`` lives."""
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # a file, or a directory of something else
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Delete what killed processes left in ``directory``: temporary files of ours that nobody touched for long."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            newest = max(p.stat().st_mtime for p in [path, *(path.iterdir() if path.is_dir() else ())])
            if time.time() - newest < STALE_AFTER or _is_held(path):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        except OSError:
            continue  # another process was faster
