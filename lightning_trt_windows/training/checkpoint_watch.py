"""Which checkpoint files a Trainer writes and removes, whoever asks for it, and when they are really there.

``on_save_checkpoint`` runs before the file exists and does not know its path; ``ModelCheckpoint``'s attributes know
nothing of ``trainer.save_checkpoint``. All of them end in the strategy's ``CheckpointIO``, so one that wraps it takes
its place while fit runs, as Lightning's own plugins do. It is not one of Lightning's ``_WrappingCheckpointIO``:
``Strategy.checkpoint_io`` (2.5, 2.6) gives those a new inner one at each access.
An ``AsyncCheckpointIO`` writes in a thread of its own: there the note is made, after the file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from lightning_trt_windows._compat.lightning import checkpoint_io_base, set_method
from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.checkpoints.reader import is_sharded
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of
from lightning_trt_windows.training.guard import Guard
from lightning_trt_windows.training.unsharded import is_sharding

__all__ = ["CheckpointWatch"]


class CheckpointWatch:
    """Collects the paths that a ``CheckpointIO`` has written and removed since they were last asked for.

    Args:
        guard: Keeps exceptions away from the training.
        moment: Gives what the module is like, or was when what is written was put together; asked with that when a file
            is written, or is about to be by another thread.
        on_saved: Called when a file has been written, while the module is still as it was saved. Not called for files
            that are written in another thread.
        on_teardown: Called when the ``CheckpointIO`` has been closed, and all files are there.
    """

    def __init__(
        self,
        guard: Guard,
        moment: Callable[[Mapping[str, Any]], Snapshot],
        on_saved: Callable[[], None],
        on_teardown: Callable[[], None],
    ) -> None:
        self._guard = guard
        self._moment = moment
        self._on_saved = on_saved
        self._on_teardown = on_teardown
        self._events: dict[str, Snapshot | None] = {}
        self._lock = threading.Lock()
        self._strategy: Any = None
        self._wrapper: Any = None
        self._save: _WatchedSave | None = None
        self._put_back_save: Callable[[], None] = lambda: None

    def attach(self, strategy: Any) -> None:
        """Wrap the ``CheckpointIO`` of ``strategy`` until ``detach``."""
        self.detach()
        inner = _without_past(strategy.checkpoint_io)
        self._wrapper = _wrapper_class(checkpoint_io_base(inner))(inner, self)
        self._strategy, strategy.checkpoint_io = strategy, self._wrapper
        if is_sharding(strategy):
            self._save = _WatchedSave(strategy.save_checkpoint, self)
            self._put_back_save = set_method(strategy, "save_checkpoint", self._save)

    def detach(self) -> None:
        """Give the strategy its own ``CheckpointIO`` back; where another one wraps ours by now, ours only passes on."""
        strategy, wrapper, self._strategy, self._wrapper = self._strategy, self._wrapper, None, None
        if wrapper is None:
            return
        wrapper.watch = None
        if self._save is not None:
            self._save.watch = None
            self._save = None
            self._put_back_save()
        if strategy.checkpoint_io is wrapper:
            strategy.checkpoint_io = _without_past(wrapper.inner)

    @property
    def writes_later(self) -> bool:
        """Whether files appear after the call that saves them."""
        # an AsyncCheckpointIO has its executor from the first file on
        return any("_executor" in vars(each) for each in _chain(self._wrapper) if hasattr(each, "__dict__"))

    def events(self) -> list[tuple[Path | RemoteFile, Snapshot | None]]:
        """Take what has happened.

        Returns:
            Each path with the moment in which it was saved, or ``None`` where it was deleted; oldest first.
        """
        with self._lock:
            events, self._events = self._events, {}
        return [(place_of(path), moment) for path, moment in events.items()]

    def saved(self, path: str | os.PathLike[str], checkpoint: Mapping[str, Any], checkpoint_io: Any) -> None:
        """Note that ``checkpoint_io`` has written ``path``, or will have when its own thread comes to it."""
        with self._guard("noticing a checkpoint"):
            moment = self._moment(checkpoint)
            writer = _writer(checkpoint_io)
            if writer is not None:  # of one thread, so this comes after what it is writing
                writer.submit(self._note, path, moment.past())
                return
            self._note(path, moment)
            self._on_saved()

    def saved_in_parts(self, path: str | os.PathLike[str], checkpoint: Mapping[str, Any]) -> None:
        """Note that the strategy itself has written ``path``, a directory, where it has."""
        with self._guard("noticing a checkpoint"):
            if is_sharded(Path(path)):
                self._note(path, self._moment(checkpoint).past())  # nobody reads it before the training has ended
                self._on_saved()

    def removed(self, path: str | os.PathLike[str]) -> None:
        """Note that ``path`` was deleted."""
        with self._guard("noticing that a checkpoint was deleted"):
            self._note(path, None)

    def closed(self) -> None:
        """Every file is there."""
        with self._guard("the end of a training that failed"):
            self._on_teardown()

    def _note(self, path: str | os.PathLike[str], moment: Snapshot | None) -> None:
        with self._lock:
            self._events.pop(os.fspath(path), None)  # to its new place in the order
            self._events[os.fspath(path)] = moment


class _WatchedSave:
    """``save_checkpoint`` of a strategy that writes directories without its ``CheckpointIO``."""

    def __init__(self, save: Callable[..., None], watch: CheckpointWatch) -> None:
        self._save = save
        self.watch: CheckpointWatch | None = watch

    def __call__(self, checkpoint: dict[str, Any], filepath: Any, *args: Any, **kwargs: Any) -> None:
        self._save(checkpoint, filepath, *args, **kwargs)
        with contextlib.suppress(Exception):  # the watch has its guard, and the checkpoint is there
            if self.watch is not None:
                self.watch.saved_in_parts(filepath, checkpoint)


def _without_past(checkpoint_io: Any) -> Any:
    """``checkpoint_io`` without wrappers that another one had wrapped when their watch ended."""
    while isinstance(checkpoint_io, _Watched) and checkpoint_io.watch is None:
        checkpoint_io = checkpoint_io.inner
    return checkpoint_io


def _writer(checkpoint_io: Any) -> Executor | None:
    """The executor in whose thread ``checkpoint_io``, or one that it wraps, writes files."""
    executors = (getattr(each, "_executor", None) for each in _chain(checkpoint_io))
    return next((executor for executor in executors if isinstance(executor, Executor)), None)


def _chain(checkpoint_io: Any) -> Iterator[Any]:
    """``checkpoint_io``, the one that it wraps, and so on."""
    while checkpoint_io is not None:
        yield checkpoint_io
        checkpoint_io = getattr(checkpoint_io, "inner", None) or getattr(checkpoint_io, "_checkpoint_io", None)


class _Watched:
    """A ``CheckpointIO`` that tells a watch of what another one does."""

    def __init__(self, inner: Any, watch: CheckpointWatch) -> None:
        self.inner = inner
        self.watch: CheckpointWatch | None = watch

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        # as Lightning itself calls it: not every CheckpointIO takes options
        options = {} if storage_options is None else {"storage_options": storage_options}
        self.inner.save_checkpoint(checkpoint, path, **options)
        self._tell("saved", path, checkpoint, self.inner)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        return self.inner.load_checkpoint(path, *args, **kwargs)

    def remove_checkpoint(self, path: Any) -> None:
        self.inner.remove_checkpoint(path)
        self._tell("removed", path)

    def teardown(self) -> None:
        try:
            self.inner.teardown()
        finally:
            self._tell("closed")

    def _tell(self, event: str, *arguments: Any) -> None:
        # the watch has its guard; a checkpoint that has been written must not be lost where that fails itself
        with contextlib.suppress(Exception):
            if self.watch is not None:
                getattr(self.watch, event)(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


def _wrapper_class(base: type[Any]) -> type[Any]:
    """``_Watched`` as a ``CheckpointIO`` of the Lightning that uses it."""
    return type("WatchedCheckpointIO", (_Watched, base), {"__doc__": _Watched.__doc__})
