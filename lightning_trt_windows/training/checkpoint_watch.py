"""Which checkpoint files a Trainer writes and removes, whoever asks for it, and when they are really there.

``on_save_checkpoint`` runs before the file exists and does not know its path; ``ModelCheckpoint``'s attributes know
nothing of ``trainer.save_checkpoint``. All of them end in the Trainer's ``CheckpointIO``, so that is what is watched.
An ``AsyncCheckpointIO`` writes in a thread of its own: there the note is made, after the file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from lightning_trt_windows.storage.remote_file import RemoteFile, place_of

__all__ = ["CheckpointWatch"]


class CheckpointWatch:
    """Collects the paths that a ``CheckpointIO`` has written and removed since they were last asked for.

    Args:
        on_saved: Called when a file has been written, while the module is still as it was saved. Not called for files
            that are written in another thread.
        on_teardown: Called when the ``CheckpointIO`` has been closed, and all files are there.
    """

    def __init__(
        self, on_saved: Callable[[], None] = lambda: None, on_teardown: Callable[[], None] = lambda: None
    ) -> None:
        self._on_saved = on_saved
        self._on_teardown = on_teardown
        self._events: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._undo: list[tuple[Any, str]] = []

    def attach(self, checkpoint_io: Any) -> None:
        """Watch ``checkpoint_io`` until ``detach``."""
        self.detach()

        def saved(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            path = _path(args, kwargs, 1)
            writer = getattr(checkpoint_io, "_executor", None)
            if isinstance(writer, Executor):  # of one thread, so this comes after what it is writing
                writer.submit(self._note, path, True)
            else:
                self._note(path, True)
                self._on_saved()

        self._after(checkpoint_io, "save_checkpoint", saved)
        self._after(checkpoint_io, "remove_checkpoint", lambda args, kwargs: self._note(_path(args, kwargs, 0), False))
        self._after(checkpoint_io, "teardown", lambda args, kwargs: self._on_teardown())

    def detach(self) -> None:
        """Leave the ``CheckpointIO`` as it was."""
        for owner, name in self._undo:
            with contextlib.suppress(AttributeError):
                delattr(owner, name)
        self._undo = []

    def events(self) -> list[tuple[Path | RemoteFile, bool]]:
        """Each path with ``True`` where it has been written and ``False`` where it has been removed, oldest first."""
        with self._lock:
            events, self._events = self._events, {}
        return [(place_of(path), written) for path, written in events.items()]

    def _note(self, path: str | os.PathLike[str], written: bool) -> None:
        with self._lock:
            self._events.pop(os.fspath(path), None)  # to its new place in the order
            self._events[os.fspath(path)] = written

    def _after(self, owner: Any, name: str, then: Callable[[Any, Any], None]) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            then(args, kwargs)
            return result

        setattr(owner, name, watched)
        self._undo.append((owner, name))


def _path(args: tuple[Any, ...], kwargs: dict[str, Any], index: int) -> str:
    path: str | os.PathLike[str] = kwargs["path"] if "path" in kwargs else args[index]
    return os.fspath(path)
