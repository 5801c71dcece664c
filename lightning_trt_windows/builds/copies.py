"""Directories of this machine for checkpoints and artifacts that belong elsewhere: no more than are worked on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

from lightning_trt_windows.errors import ArtifactError, LightningTrtError
from lightning_trt_windows.storage.remote_file import staging_directory

__all__ = ["Copies", "with_place"]


class Copies:
    """Makes a directory for each export whose checkpoint or artifact is elsewhere, and deletes it afterwards.

    Args:
        executor: Where they are built: one for each of its workers, and one that is copied meanwhile.
        most: How many there are at most, and where ``executor`` does not say how many workers it has.
    """

    def __init__(self, executor: Executor, most: int) -> None:
        self._executor = executor
        self._most = most
        self._root: Path | None = None
        self._folders: set[Path] = set()

    def are_many(self) -> bool:
        """Whether the next one has to wait until one is removed."""
        workers = getattr(self._executor, "workers", None)
        most = self._most if not isinstance(workers, int) else min(self._most, workers + 1)
        return len(self._folders) >= most

    def new(self) -> Path:
        """Make a directory; its parent lasts until ``close``."""
        if self._root is None:
            self._root = staging_directory()
        folder = Path(tempfile.mkdtemp(dir=self._root))
        self._folders.add(folder)
        return folder

    def remove(self, folder: Path | None, *, keep: Iterable[Path] = ()) -> None:
        """Delete what is in ``folder``, except for the files and directories in ``keep``."""
        if folder is None:
            return
        self._folders.discard(folder)
        kept = set(keep)
        for path in folder.iterdir():
            if path in kept:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        with contextlib.suppress(OSError):  # something is kept
            folder.rmdir()

    def close(self) -> None:
        """Delete all but what ``remove`` has kept."""
        for folder in list(self._folders):
            self.remove(folder)
        if self._root is not None:
            with contextlib.suppress(OSError):  # something is kept
                self._root.rmdir()


def with_place(error: Exception, folder: Path | None, kept: Iterable[Path]) -> Exception:
    """``error``, which says where what is kept of a failed export is, if that is not beside the checkpoint.

    Args:
        error: Why it failed.
        folder: The export's own directory.
        kept: Files and directories in it, whether they are there or not.

    Returns:
        The same error.
    """
    names = [path.name for path in kept if os.path.lexists(path)]
    if folder is None or not names or not isinstance(error, LightningTrtError) or isinstance(error, ArtifactError):
        return error
    first, *rest = error.args or ("",)
    verb = "is" if len(names) == 1 else "are"
    error.args = (f"{first}\n({', '.join(names)} {verb} in {folder} of this machine)", *rest)
    return error
