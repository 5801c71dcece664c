"""The exports of one ``trainer.fit``: when to look for checkpoints, which ones, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lightning_trt_windows._compat.lightning import rank_zero_info, rank_zero_warn
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import CheckpointError, LightningTrtError
from lightning_trt_windows.progress.display import Progress, Silent, display_like
from lightning_trt_windows.training.checkpoint_exports import Run, distinct, interrupted
from lightning_trt_windows.training.checkpoint_watch import CheckpointWatch
from lightning_trt_windows.training.outcomes import Report
from lightning_trt_windows.training.preflight import checkpoint_paths

__all__ = ["Following"]

_T = TypeVar("_T")


class Following:
    """Tells a ``Run`` what its Trainer saves and deletes.

    Args:
        trainer: The Trainer, whose fit has begun.
        run: Builds the artifacts.
        report: Hears of what cannot be exported.
        observer: Looks away while the module is captured: that is not training.
        discover: Gives the ranges, as far as they are known.
        every: Export each checkpoint as it is saved; otherwise the best and the last at the end.
        progress: Show how far things are when the training waits for them.
    """

    def __init__(
        self,
        trainer: Any,
        run: Run,
        report: Report,
        observer: Observer,
        discover: Callable[[], Discovered],
        *,
        every: bool,
        progress: bool,
    ) -> None:
        self.trainer = trainer
        self.every = every
        self._run: Run | None = run
        self._report = report
        self._observer = observer
        self._discover = discover
        self._exception: BaseException | None = None
        self._left = 0
        """Checkpoints that are there and not looked at yet."""
        self._shows_progress = progress
        self._progress = Progress(Silent())
        self._watch = CheckpointWatch(self.look, self._end_after_exception)
        if every:
            self._watch.attach(trainer.strategy.checkpoint_io)

    def look(self) -> None:
        """Start the builds of what has been saved, end those of what has been deleted, report what has finished."""
        if self._run is None or not self.every:
            return
        for path, written in self._watch.events():
            if written:
                rank_zero_info(f"WindowsExport: exporting {path.name} ...")
                with self.unobserved():
                    self._run.written(path, self.trainer.global_step)
            else:
                self._run.removed(path)
        self._run.collect()

    def end(self) -> None:
        """Fit has ended and every checkpoint is on disk: wait for the artifacts."""
        self._watch.detach()
        with self._waiting():
            self.look()
            self._add_what_is_there()
            self._finish()

    def end_of_failed(self, exception: BaseException) -> bool:
        """Fit has been interrupted or has failed; whether what was saved is exported all the same."""
        self._exception = exception
        return self.every  # the last checkpoint is not on disk yet

    def detach(self) -> None:
        """Leave nothing on the Trainer."""
        self._watch.detach()

    @contextlib.contextmanager
    def unobserved(self) -> Iterator[None]:
        """What happens here to the module is not training."""
        self._observer.detach()
        try:
            yield
        finally:
            if self._exception is None:
                self._observer.attach(self.trainer.lightning_module)

    def _end_after_exception(self) -> None:
        """Called when Lightning closes its CheckpointIO: the last checkpoint of a failed run is on disk."""
        if self._run is None or self._exception is None:
            return
        self._watch.detach()
        if isinstance(self._exception, KeyboardInterrupt) or type(self._exception).__name__ == "SIGTERMException":
            self._run.cancel()
            for path, written in self._watch.events():
                if written:
                    self._report.failed(path, interrupted(path))
            self._run = None
            return
        with self._waiting():
            self.look()
            self._finish()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """While training waits for artifacts, people see what for; then a summary."""
        display = display_like(self.trainer) if self._shows_progress else Silent()
        self._progress = Progress(display)
        with self._progress.shown():
            yield
        self._report.summarise(display)

    def _tell_progress(self) -> None:
        if self._run is not None and (to_do := self._run.unfinished + self._left):
            done = self._report.count
            self._progress.update(done, done + to_do, self._run.doing())

    def _add_what_is_there(self) -> None:
        """At the end: the best and the last, or all that a resumed run has kept from before."""
        assert self._run is not None
        try:
            paths = checkpoint_paths(self.trainer, every=self.every)
        except OSError as error:
            self._report.failed(None, CheckpointError(f"the checkpoints of this run cannot be looked at: {error}"))
            return
        if not paths and not self._run.busy:
            rank_zero_warn(
                "WindowsExport: this run wrote no checkpoint, so there is nothing to export. ModelCheckpoint writes "
                "them (not with save_top_k=0 or enable_checkpointing=False); a module without a checkpoint is exported "
                "with lightning_trt_windows.export_module."
            )
            return
        if self.every:
            for path in self._counted(self._run.fetched(paths)):
                self._run.found(path, -1)
            return
        try:
            self._discover()
        except LightningTrtError as error:
            self._report.failed(None, error)
            return
        for checkpoint in self._counted(distinct(self._run.fetched(paths), self._run.failed)):
            rank_zero_info(f"WindowsExport: exporting {checkpoint.path.name} ...")
            self._run.found(checkpoint.path, checkpoint.global_step or 0)

    def _counted(self, checkpoints: list[_T]) -> Iterator[_T]:
        for index, checkpoint in enumerate(checkpoints):
            self._left = len(checkpoints) - index
            self._tell_progress()
            yield checkpoint
            self._left -= 1

    def _finish(self) -> None:
        assert self._run is not None
        try:
            self._run.finish(self._tell_progress)
        finally:
            self._run = None
