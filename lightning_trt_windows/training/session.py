"""The exports of one ``trainer.fit``: when to look for checkpoints, which ones, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning_trt_windows._compat.lightning import rank_zero_info
from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.checkpoints.metadata import SHAPES
from lightning_trt_windows.checkpoints.reader import is_sharded
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import CheckpointError, LightningTrtError
from lightning_trt_windows.progress.display import Display, Progress, Silent, display_like
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of
from lightning_trt_windows.training.checkpoint_exports import FINAL, CheckpointExports, in_training_order, interrupted
from lightning_trt_windows.training.checkpoint_watch import CheckpointWatch
from lightning_trt_windows.training.events import Listener
from lightning_trt_windows.training.guard import Guard
from lightning_trt_windows.training.options import Options
from lightning_trt_windows.training.outcomes import Outcomes
from lightning_trt_windows.training.preflight import checkpoint_paths, last_of
from lightning_trt_windows.training.state import checkpoint_state

__all__ = ["Session"]

_T = TypeVar("_T")


class Session:
    """Tells ``CheckpointExports`` what its Trainer saves and deletes.

    Args:
        trainer: The Trainer, whose fit has begun.
        exports: Builds the artifacts.
        events: Is told of what cannot be exported.
        outcomes: What came of the run until now, for the progress display.
        guard: Keeps exceptions away from the training.
        observer: Looks away while the module is captured: that is not training.
        discover: Gives the ranges, as far as they are known.
        options: What the user has chosen.
    """

    def __init__(
        self,
        trainer: Any,
        exports: CheckpointExports,
        events: Listener,
        outcomes: Outcomes,
        guard: Guard,
        observer: Observer,
        discover: Callable[[], Discovered],
        options: Options,
    ) -> None:
        self.trainer = trainer
        self.every = options.every
        self.options = options
        self._exports: CheckpointExports | None = exports
        self._events = events
        self._outcomes = outcomes
        self._guard = guard
        self._observer = observer
        self._discover = discover
        self._exception: BaseException | None = None
        self._in_parts: dict[Path | RemoteFile, Snapshot] = {}
        """Directories that several processes have written; one file is made of each when training has ended."""
        self._left = 0
        """Checkpoints that are there and not looked at yet."""
        self._written_again = 0
        """Checkpoints that are there, and are looked at once they have been written again."""
        self._shows_progress = options.progress
        self._progress: Progress | None = None
        self._ahead: tuple[Any, Snapshot] | None = None
        """What was put into the checkpoint that is about to be written, and what the module was like then."""
        self._watch = CheckpointWatch(guard, self.moment, self.look, self._end_after_exception)
        if self.every:
            self._watch.attach(trainer.strategy)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is put together: let it carry what was seen, and take down what the module is like.

        Here and not when the file has been written: a GPU is still at the steps before, and nothing waits for what runs
        on the processor meanwhile.
        """
        states = checkpoint.setdefault("callbacks", {})
        states[SHAPES] = state = checkpoint_state(self._observer, self._discover)
        if self.every and self._exports is not None and self.trainer.is_global_zero:
            self._ahead = state, self._snapshot(self._exports)

    def moment(self, checkpoint: Mapping[str, Any]) -> Snapshot:
        """What the module was like when ``checkpoint`` was put together, or is like now.

        It has been written, or handed to the thread that writes it.
        """
        assert self._exports is not None
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (checkpoint.get("callbacks") or {}).get(SHAPES) is ahead[0]:
            return ahead[1]
        # Lightning calls no hooks for weights alone
        return self._snapshot(self._exports)

    def _snapshot(self, exports: CheckpointExports) -> Snapshot:
        with self.unobserved():
            return exports.snapshot(self.trainer.global_step)

    def look(self) -> None:
        """Start the builds of what has been saved, end those of what has been deleted, report what has finished."""
        if self._exports is None or not self.every:
            return
        self._see_to(self._watch.events())
        self._exports.collect()

    def _see_to(self, events: Iterable[tuple[Path | RemoteFile, Snapshot | None]]) -> None:
        assert self._exports is not None
        for path, moment in events:
            if moment is None:
                self._in_parts.pop(path, None)
                self._exports.removed(path)
                continue
            if _in_parts(path):
                self._in_parts[path] = moment
                continue
            rank_zero_info(f"WindowsExport: exporting {path.name} ...")
            with self.unobserved():
                self._exports.on_saved(path, moment)

    def begin_end(self) -> None:
        """Training has ended, and ModelCheckpoint may write a last checkpoint: start what is there already.

        Only where nobody waits for it: a build in this process would keep others waiting at the next collective, and
        files that another thread writes need not be whole yet.
        """
        if self._exports is None:
            return
        if self.every:
            self.look()
            return
        self._watch.attach(self.trainer.strategy)
        inline = self.options.executor == "inline"
        if self._watch.writes_later or (inline and self.trainer.world_size > 1):
            return
        last = [last_of(callback) for callback in self.trainer.checkpoint_callbacks] if inline else []
        with self._guard("starting exports"), self._waiting(summary=False), self.unobserved():
            paths = self._paths()
            early = [path for path in paths if path not in last and not _in_parts(path)]
            self._written_again = sum(path in last for path in paths)
            # other callbacks and the module itself may make it ready after us, in on_train_end
            self._add_best_and_last(early, is_early=True)
            self._exports.collect()
        self._written_again = 0

    def end(self) -> None:
        """Fit has ended and every checkpoint is on disk: wait for the artifacts."""
        events = self._watch.events()
        self._watch.detach()
        with self._waiting():
            with self._guard("looking for checkpoints"):
                assert self._exports is not None
                # at the end only what was started before on_fit_end can have become another file since
                self._see_to(events if self.every else [e for e in events if self._exports.has_seen(e[0])])
                self._exports.collect()
                self._add_what_is_there()
            self._finish()

    def end_of_failed(self, exception: BaseException) -> bool:
        """Fit has been interrupted or has failed; whether what was saved is exported all the same."""
        self._exception = exception
        return self.every  # the last checkpoint is not on disk yet

    def detach(self) -> None:
        """Leave nothing on the Trainer."""
        self._watch.detach()

    def unobserved(self) -> contextlib.AbstractContextManager[None]:
        """What happens here to the module is not training."""
        return self._observer.looking_away()

    def _end_after_exception(self) -> None:
        """Called when Lightning closes its CheckpointIO: the last checkpoint of a failed run is on disk."""
        if self._exports is None or self._exception is None:
            return
        self._watch.detach()
        if isinstance(self._exception, KeyboardInterrupt) or type(self._exception).__name__ == "SIGTERMException":
            self._exports.cancel()
            for path, moment in self._watch.events():
                if moment is not None:
                    self._events.on_failure(path, interrupted(path))
            self._exports = None
            return
        with self._waiting():
            with self._guard("looking for checkpoints"):
                self.look()
            self._finish()

    @contextlib.contextmanager
    def _waiting(self, *, summary: bool = True) -> Iterator[None]:
        """While training waits for artifacts, people see what for; then a summary."""
        if self._progress is None:
            display: Display = Silent()
            with self._guard("showing the progress"):
                display = display_like(self.trainer) if self._shows_progress else display
            self._progress = Progress(display)
        with self._progress.shown():
            yield
        with self._guard("showing the summary"):
            if summary:
                self._outcomes.summarise(self._progress.display)

    def _tell_progress(self) -> None:
        if self._exports is None or self._progress is None:
            return
        done, to_do = self._outcomes.count, self._exports.unfinished + self._left + self._written_again
        if done + to_do:
            self._progress.update(done, done + to_do, self._exports.doing())

    def _add_what_is_there(self) -> None:
        """At the end: the best and the last, or all that a resumed run has kept from before."""
        assert self._exports is not None
        for path, moment in self._counted(list(self._in_parts.items())):
            for checkpoint in self._exports.fetched([path]):
                rank_zero_info(f"WindowsExport: exporting {checkpoint.name} ...")
                with self.unobserved():
                    self._exports.on_saved(checkpoint, moment)
        paths = self._paths()
        if not paths and not self._exports.busy:
            rank_zero_info(
                "WindowsExport: this run wrote no checkpoint (ModelCheckpoint writes them, unless save_top_k=0 or "
                f"enable_checkpointing=False): exporting the final weights as {FINAL}.windows.ep in the Trainer's "
                "root directory ..."
            )
            self._exports.add_final(place_of(self.trainer.default_root_dir))
        elif self.every:
            for path in self._counted(self._exports.fetched(p for p in paths if not self._exports.has_seen(p))):
                self._exports.add_existing(path, -1)
        else:
            self._add_best_and_last(paths)

    def _paths(self) -> list[Path | RemoteFile]:
        try:
            return checkpoint_paths(self.trainer, every=self.every)
        except OSError as error:
            self._events.on_failure(None, CheckpointError(f"the checkpoints of this run cannot be listed: {error}"))
            return []

    def _add_best_and_last(self, paths: Iterable[Path | RemoteFile], *, is_early: bool = False) -> None:
        assert self._exports is not None
        paths = [path for path in paths if not self._exports.has_seen(path)]
        if not paths:
            return
        try:
            self._discover()
        except LightningTrtError as error:
            if not is_early:
                self._events.on_failure(None, error)
            return
        for path, step in self._counted(in_training_order(self._exports.fetched(paths), self._exports.failed)):
            rank_zero_info(f"WindowsExport: exporting {path.name} ...")
            self._exports.add_existing(path, step, is_early=is_early)

    def _counted(self, checkpoints: list[_T]) -> Iterator[_T]:
        for index, checkpoint in enumerate(checkpoints):
            self._left = len(checkpoints) - index
            self._tell_progress()
            yield checkpoint
            self._left -= 1

    def _finish(self) -> None:
        assert self._exports is not None
        try:
            self._exports.finish(self._tell_progress)
        finally:
            self._exports = None


def _in_parts(path: Path | RemoteFile) -> bool:
    """Whether one file has to be made of a checkpoint first: others would wait for it at the next one."""
    return isinstance(path, Path) and is_sharded(path)
