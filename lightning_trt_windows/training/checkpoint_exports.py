"""The exports of one ``trainer.fit``: from the files that it writes and removes to artifacts and failures.

The callback says when to look; this says what to do. It knows no Trainer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.builds.queue import Builds, Outcome, remove_artifact
from lightning_trt_windows.builds.staging import Mirror
from lightning_trt_windows.builds.tracer import Tracer, sweep
from lightning_trt_windows.checkpoints.reader import Checkpoint, read_checkpoint
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import CheckpointError, CompileError, LightningTrtError
from lightning_trt_windows.export.job import SavedProgram
from lightning_trt_windows.export.pipeline import existing
from lightning_trt_windows.settings import ExportSettings
from lightning_trt_windows.storage.remote_file import RemoteFile
from lightning_trt_windows.training.options import RunOptions

__all__ = ["Run", "distinct", "interrupted"]


class Run:
    """Artifacts for the checkpoints of one run.

    Args:
        module: The module in training.
        discover: Gives the ranges, as far as they are known.
        settings: Of the exports.
        options: Of the builds.
        made: Called with each artifact.
        failed: Called with a checkpoint and why it has no artifact.
        gone: Called with a checkpoint whose artifact is there no longer.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifest.
    """

    def __init__(
        self,
        module: Any,
        discover: Callable[[], Discovered],
        settings: ExportSettings,
        options: RunOptions,
        *,
        made: Callable[[Artifact], None],
        failed: Callable[[Path | RemoteFile, Exception], None],
        gone: Callable[[Path], None],
        method: str,
        extra: Mapping[str, Any],
    ) -> None:
        self.module = module
        self.options = options
        self._discover = discover
        self._made, self._gone, self._tell_failed = made, gone, failed
        self.mirror = Mirror()
        """Where checkpoints of other file systems are meanwhile."""
        self._tracer = Tracer(settings, method=method, extra=extra, retrace=options.retrace)
        self._executor, self._own_executor = options.make_executor()
        self._builds = Builds(self._executor, most=options.max_pending, replace_queued=options.replace_queued)
        self.busy = False
        """Whether there was any checkpoint."""
        self._step_of: dict[Path, int] = {}
        self._swept: set[Path] = set()

    def written(self, place: Path | RemoteFile, step: int) -> None:
        """Build the artifact of a file that has just been written."""
        checkpoint = self.mirror.local(place)
        # whatever stands there is of the file's former content
        self._builds.drop(checkpoint)
        self._remove_artifact(checkpoint)
        self.mirror.forget(checkpoint)
        self._step_of[checkpoint] = step
        self._start(checkpoint)

    def fetched(self, places: Iterable[Path | RemoteFile]) -> list[Path]:
        """Checkpoints on this machine, with copies of those that are not."""
        checkpoints = []
        for place in places:
            checkpoint = self.mirror.local(place)
            try:
                if checkpoint not in self._step_of:  # otherwise it has been seen to
                    self.mirror.fetch(checkpoint)
            except LightningTrtError as error:
                self.failed(checkpoint, error)
                continue
            checkpoints.append(checkpoint)
        return checkpoints

    def found(self, checkpoint: Path, step: int) -> None:
        """Build the artifact of a file that has been there for some time, unless it is there as well.

        Args:
            checkpoint: A path that ``fetched`` gave back, or any other of this machine.
            step: Optimizer steps that had been taken, -1 where that is not known.
        """
        if checkpoint not in self._step_of:
            self._step_of[checkpoint] = step
            self._start(checkpoint, look_first=True)

    def removed(self, place: Path | RemoteFile) -> None:
        """Give up the build of a file that is no more, and delete its artifact."""
        checkpoint = self.mirror.local(place)
        self._builds.drop(checkpoint)
        self._step_of.pop(checkpoint, None)
        if not self.options.keep_dropped:
            self._remove_artifact(checkpoint)
        if self.mirror.is_remote_checkpoint(checkpoint):
            checkpoint.unlink(missing_ok=True)  # as it has there

    def collect(self) -> None:
        """Report what has finished meanwhile."""
        for outcome in self._builds.collect():
            self._report(outcome)
        self._report_uploaded()
        self._report_replaced()

    @property
    def unfinished(self) -> int:
        """How many artifacts are being made or wait for it."""
        return len(self._builds) + len(self.mirror)

    def doing(self) -> str:
        """What is under way, for people to see."""
        return self._builds.doing() or ("upload" if len(self.mirror) else "")

    def finish(self, look: Callable[[], None] = lambda: None) -> None:
        """Wait for all builds and report them. What interrupts the wait gives up the rest.

        Args:
            look: Called every now and then meanwhile.
        """
        try:
            self._builds.finish(self._report, look)
            while len(self.mirror):
                self._report_uploaded()
                look()
                time.sleep(0.05)
            self._report_replaced()
        except BaseException:
            self.cancel()
            raise
        self._close()

    def cancel(self) -> None:
        """Give up what is not finished, and report it."""
        self.collect()
        for checkpoint in (*self._builds.cancel(), *self.mirror.cancel()):
            self.failed(checkpoint, interrupted(checkpoint))
        self._report_uploaded()
        self._close()

    def _close(self) -> None:
        if self._own_executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._tracer.close()
        self.mirror.close()

    def _remove_artifact(self, checkpoint: Path) -> None:
        removed = remove_artifact(checkpoint)
        if removed or self.mirror.is_remote_checkpoint(checkpoint):
            self.mirror.remove(checkpoint)
            self._gone(checkpoint)

    def failed(self, checkpoint: Path, error: Exception) -> None:
        """Tell that ``checkpoint`` has no artifact."""
        self._tell_failed(self.mirror.origin(checkpoint), self.mirror.explained(checkpoint, error))

    def _start(self, checkpoint: Path, *, look_first: bool = False) -> None:
        self.busy = True
        try:
            if not checkpoint.exists():
                self.mirror.fetch(checkpoint)
            self._sweep(checkpoint.parent)
            step = self._step_of[checkpoint]
            twins = tuple(c for c, s in self._step_of.items() if s == step and c != checkpoint)
            job = self._tracer.job(self.module, checkpoint, self._discover, twins)
            if look_first and (artifact := existing(job) or self.mirror.existing(checkpoint, job)):
                self._made(artifact)
                return
        # whatever happens here, the training goes on; the error is kept and reported
        except Exception as error:
            self.failed(checkpoint, error)
            return
        self._builds.add(checkpoint, job)

    def _sweep(self, directory: Path) -> None:
        if directory not in self._swept:
            self._swept.add(directory)
            sweep(directory)

    def _report(self, outcome: Outcome) -> None:
        checkpoint, job, result = outcome
        if isinstance(result, Artifact) and self.mirror.is_remote_checkpoint(checkpoint):
            self.mirror.send(checkpoint, result)
        elif isinstance(result, Artifact):
            self._made(result)
        elif not checkpoint.exists():
            return  # it went while it was built
        elif isinstance(result, CheckpointError) and isinstance(job.program, SavedProgram) and job.program.weights:
            # the module makes something else of its weights than the last time: it has to load them itself
            self._tracer.retrace = True
            self._start(checkpoint)
        else:
            self.failed(checkpoint, result)

    def _report_uploaded(self) -> None:
        for checkpoint, result in self.mirror.done():
            if isinstance(result, Exception):
                self.failed(checkpoint, result)
            else:
                self._made(result)

    def _report_replaced(self) -> None:
        replaced, self._builds.replaced = self._builds.replaced, []
        for checkpoint in replaced:
            self._step_of.pop(checkpoint, None)


def distinct(paths: Iterable[Path], failed: Callable[[Path, Exception], None]) -> list[Checkpoint]:
    """The checkpoints in the order of training, those with the same weights once."""
    checkpoints: list[Checkpoint] = []
    for path in paths:
        try:
            # the Trainer wrote it in this run and would itself read it the same way
            checkpoint = read_checkpoint(path, trusted=True)
        except LightningTrtError as error:
            failed(path, error)
            continue
        if not any(checkpoint.same_weights(other) for other in checkpoints):
            checkpoints.append(checkpoint)
    return sorted(checkpoints, key=lambda c: c.global_step or 0)


def interrupted(checkpoint: Path | RemoteFile) -> CompileError:
    """Why a checkpoint has no artifact after an interruption."""
    return CompileError(
        f"training was interrupted before it was built; later: lightning-trt-windows export {checkpoint.name} "
        "--module package.module:Class"
    )
