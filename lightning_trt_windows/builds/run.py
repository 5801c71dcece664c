"""The exports of one ``trainer.fit``: from the files that it writes and removes to artifacts and failures.

The callback says when to look; this says what to do. It knows no Trainer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact import Artifact
from lightning_trt_windows.builds.jobs import SavedProgram
from lightning_trt_windows.builds.options import RunOptions
from lightning_trt_windows.builds.pending import Builds, Outcome, remove_artifact
from lightning_trt_windows.builds.tracer import Tracer, sweep
from lightning_trt_windows.checkpoint import Checkpoint, read_checkpoint
from lightning_trt_windows.errors import CheckpointError, CompileError, LightningTrtError, OutputError
from lightning_trt_windows.export import existing
from lightning_trt_windows.observe.discover import Discovered
from lightning_trt_windows.settings import ExportSettings

__all__ = ["Failure", "Run", "distinct", "interrupted"]


@dataclass(frozen=True)
class Failure:
    """An artifact that could not be made."""

    checkpoint: Path | None
    """The checkpoint it was for; ``None`` where it failed before there was one."""
    error: Exception

    def __str__(self) -> str:
        name = self.checkpoint.name if self.checkpoint else "this run"
        return f"no Windows artifact for {name}: {type(self.error).__name__}: {self.error}"


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
        failed: Callable[[Path, Exception], None],
        gone: Callable[[Path], None],
        method: str,
        extra: Mapping[str, Any],
    ) -> None:
        self.module = module
        self.options = options
        self._discover = discover
        self._made, self._failed, self._gone = made, failed, gone
        self._tracer = Tracer(settings, method=method, extra=extra, retrace=options.retrace)
        self._executor, self._own_executor = options.make_executor()
        self._builds = Builds(self._executor, most=options.max_pending, replace_queued=options.replace_queued)
        self.busy = False
        """Whether there was any checkpoint."""
        self._step_of: dict[Path, int] = {}
        self._swept: set[Path] = set()

    def written(self, checkpoint: Path, step: int) -> None:
        """Build the artifact of a file that has just been written."""
        # whatever stands there is of the file's former content
        self._builds.drop(checkpoint)
        if remove_artifact(checkpoint):
            self._gone(checkpoint)
        self._step_of[checkpoint] = step
        self._start(checkpoint)

    def found(self, checkpoint: Path, step: int) -> None:
        """Build the artifact of a file that has been there for some time, unless it is there as well."""
        if checkpoint not in self._step_of:
            self._step_of[checkpoint] = step
            self._start(checkpoint, look_first=True)

    def removed(self, checkpoint: Path) -> None:
        """Give up the build of a file that is no more, and delete its artifact."""
        self._builds.drop(checkpoint)
        self._step_of.pop(checkpoint, None)
        if not self.options.keep_dropped and remove_artifact(checkpoint):
            self._gone(checkpoint)

    def collect(self) -> None:
        """Report what has finished meanwhile."""
        for outcome in self._builds.collect():
            self._report(outcome)
        self._report_replaced()

    def finish(self) -> None:
        """Wait for all builds and report them. What interrupts the wait gives up the rest."""
        try:
            self._builds.finish(self._report)
            self._report_replaced()
        except BaseException:
            self.cancel()
            raise
        self._close()

    def cancel(self) -> None:
        """Give up what is not finished, and report it."""
        self.collect()
        for checkpoint in self._builds.cancel():
            self._failed(checkpoint, interrupted(checkpoint))
        self._close()

    def _close(self) -> None:
        if self._own_executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._tracer.close()

    def _start(self, checkpoint: Path, *, look_first: bool = False) -> None:
        self.busy = True
        try:
            _refuse_remote(checkpoint)
            self._sweep(checkpoint.parent)
            step = self._step_of[checkpoint]
            twins = tuple(c for c, s in self._step_of.items() if s == step and c != checkpoint)
            job = self._tracer.job(self.module, checkpoint, self._discover, twins)
            if look_first and (artifact := existing(job)):
                self._made(artifact)
                return
        # whatever happens here, the training goes on; the error is kept and reported
        except Exception as error:
            self._failed(checkpoint, error)
            return
        self._builds.add(checkpoint, job)

    def _sweep(self, directory: Path) -> None:
        if directory not in self._swept:
            self._swept.add(directory)
            sweep(directory)

    def _report(self, outcome: Outcome) -> None:
        checkpoint, job, result = outcome
        if isinstance(result, Artifact):
            self._made(result)
        elif not checkpoint.exists():
            return  # it went while it was built
        elif isinstance(result, CheckpointError) and isinstance(job.program, SavedProgram) and job.program.weights:
            # the module makes something else of its weights than the last time: it has to load them itself
            self._tracer.retrace = True
            self._start(checkpoint)
        else:
            self._failed(checkpoint, result)

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


def interrupted(checkpoint: Path) -> CompileError:
    """Why a checkpoint has no artifact after an interruption."""
    return CompileError(
        f"training was interrupted before it was built; later: lightning-trt-windows export {checkpoint.name} "
        "--module package.module:Class"
    )


def _refuse_remote(checkpoint: Path) -> None:
    text = os.fspath(checkpoint)
    if ":/" in text[2:]:
        raise OutputError(
            f"{text} is not a file of this machine; artifacts are written beside local checkpoints only. Copy it, and "
            "export the copy with: lightning-trt-windows export"
        )
