"""The exports of one ``trainer.fit``: from the files that it writes and removes to artifacts and failures.

The callback says when to look; this says what to do. It knows no Trainer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_trt_windows._compat.lightning import rank_zero_info
from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.builds.queue import Builds, Outcome, remove_artifact
from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.builds.staging import Staging
from lightning_trt_windows.builds.trace_folder import sweep
from lightning_trt_windows.builds.tracer import Tracer
from lightning_trt_windows.checkpoints.consolidate import one_file
from lightning_trt_windows.checkpoints.reader import step_of
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import CheckpointError, CompileError, LightningTrtError
from lightning_trt_windows.export.job import SavedProgram
from lightning_trt_windows.export.pipeline import build, prepare
from lightning_trt_windows.export.reuse import existing
from lightning_trt_windows.progress.events import stage
from lightning_trt_windows.storage.destination import Destination
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of
from lightning_trt_windows.training.events import Listener
from lightning_trt_windows.training.guard import Guard
from lightning_trt_windows.training.options import Options

__all__ = ["FINAL", "CheckpointExports", "in_training_order", "interrupted"]


FINAL = "final"
"""Stem of the artifact of a training that wrote no checkpoint."""


class CheckpointExports:
    """Artifacts for the checkpoints of one run.

    Args:
        module: Gives the module, or what is captured in its place.
        discover: Gives the ranges, as far as they are known.
        options: What the user has chosen.
        events: Is told of artifacts, deletions and failures.
        guard: Keeps exceptions away from the training.
        has_weights: Whether the module that is captured has the weights of the moment.
    """

    def __init__(
        self,
        module: Callable[[], Any],
        discover: Callable[[], Discovered],
        options: Options,
        events: Listener,
        guard: Guard,
        *,
        has_weights: bool = True,
    ) -> None:
        self._module = module
        self._has_weights = has_weights
        self.options = options
        self._discover = discover
        self._events = events
        self._guard = guard
        self._staging = Staging()
        """Where checkpoints of other file systems are meanwhile."""
        self._tracer = Tracer(options, retrace=options.retrace, has_weights=has_weights)
        self._executor, self._own_executor = options.make_executor()
        self._builds = Builds(
            self._executor,
            most=options.max_pending,
            replace_queued=options.replace_queued,
            tell=lambda line: rank_zero_info(f"WindowsExport: {line}."),
        )
        self.busy = False
        """Whether there was any checkpoint."""
        self._moments: dict[Path, Snapshot] = {}
        """Checkpoints that have been seen to, with what the module was like."""
        self._swept: set[Path] = set()

    def later(self, action: Callable[[], None]) -> None:
        """Do ``action`` in the thread that deals with other file systems, after what it has been given before."""
        self._staging.later(action)

    def snapshot(self, step: int) -> Snapshot:
        """Take down what the module computes now, after ``step`` optimizer steps."""
        try:
            module = self._module()
        except LightningTrtError as error:
            return Snapshot(step, error)
        return self._tracer.snapshot(module, self._discover, step=step)

    def on_saved(self, place: Path | RemoteFile, moment: Snapshot) -> None:
        """Build the artifact of a file that has been written.

        Args:
            place: The file.
            moment: What the module was like when it was saved.
        """
        with self._guard(f"exporting {place.name}", place):
            checkpoint = self._staging.local(place)
            # whatever stands there is of the file's former content
            self._builds.drop(checkpoint)
            self._remove_artifact(checkpoint)
            self._staging.forget(checkpoint)
            self._moments[checkpoint] = moment
            self._start(checkpoint)

    def fetched(self, places: Iterable[Path | RemoteFile]) -> list[Path]:
        """Checkpoints on this machine, with copies of those that are not."""
        checkpoints = []
        for place in places:
            checkpoint = self._staging.local(place)
            try:
                # those of the training's own may be read with their pickles
                checkpoint = one_file(checkpoint, trusted=True)
                if checkpoint not in self._moments:  # otherwise it has been seen to
                    self._staging.fetch(checkpoint)
            except LightningTrtError as error:
                self.failed(checkpoint, error)
                continue
            checkpoints.append(checkpoint)
        return checkpoints

    def has_seen(self, place: Path | RemoteFile) -> bool:
        """Whether the artifact of ``place`` has been seen to."""
        return self._staging.local(place) in self._moments

    def add_existing(self, checkpoint: Path, step: int, *, is_early: bool = False) -> None:
        """Build the artifact of a file that has been there for some time, unless it is there as well.

        Args:
            checkpoint: A path that ``fetched`` gave back, or any other of this machine.
            step: Optimizer steps that had been taken, -1 where that is not known.
            is_early: It is tried again later: what cannot be captured now is no failure yet.
        """
        if checkpoint not in self._moments:
            self._moments[checkpoint] = self.snapshot(step)
            self._start(checkpoint, look_first=True, is_early=is_early)

    def add_final(self, directory: Path | RemoteFile) -> None:
        """Export the weights that the module holds, of a training that wrote no checkpoint, into ``directory``."""
        with self._guard("exporting the final weights"):
            beside = directory / f"{FINAL}.ckpt" if isinstance(directory, Path) else f"{directory.url}/{FINAL}.ckpt"
            destination = Destination.of(place_of(beside), None)
            destination.paths.ep.parent.mkdir(parents=True, exist_ok=True)
            if not self._has_weights:
                raise CheckpointError(
                    "this training wrote no checkpoint, and under its strategy weights come from checkpoints alone, as "
                    "no process need hold all of them. Let a ModelCheckpoint write them"
                )
            job = prepare(self._module(), self._discover(), destination.paths, self.options)
            self._events.on_artifact(destination.finished(build(job)))

    def removed(self, place: Path | RemoteFile) -> None:
        """Give up the build of a file that was deleted, and delete its artifact."""
        with self._guard(f"deleting the artifact of {place.name}", place):
            checkpoint = self._staging.local(place)
            self._builds.drop(checkpoint)
            self._moments.pop(checkpoint, None)
            if not self.options.keep_dropped:
                self._remove_artifact(checkpoint)
            if self._staging.is_remote(checkpoint):
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
        return self._builds.wanted + len(self._staging)

    def doing(self) -> str:
        """What is under way, for people to see."""
        return self._builds.doing() or ("upload" if len(self._staging) else "")

    def finish(self, look: Callable[[], None] = lambda: None) -> None:
        """Wait for all builds and report them. What interrupts the wait gives up the rest.

        Args:
            look: Called every now and then meanwhile.
        """
        try:
            self._builds.finish(self._report, look)
            while len(self._staging):
                self._report_uploaded()
                look()
                time.sleep(0.05)
            self._report_replaced()
            look()
        except BaseException:
            self.cancel()
            raise
        stage("closing")
        self._close()

    def cancel(self) -> None:
        """Give up what is not finished, and report it."""
        self.collect()
        for checkpoint in (*self._builds.cancel(), *self._staging.cancel()):
            self.failed(checkpoint, interrupted(checkpoint))
        self._report_uploaded()
        self._close()

    def _close(self) -> None:
        if self._own_executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        self._tracer.close()
        self._staging.close()

    def _remove_artifact(self, checkpoint: Path) -> None:
        removed = remove_artifact(checkpoint)
        if removed or self._staging.is_remote(checkpoint):
            self._staging.remove(checkpoint)
            self._events.on_removed(ArtifactPaths.beside(checkpoint).ep, self._staging.origin(checkpoint))

    def failed(self, checkpoint: Path, error: Exception) -> None:
        """Tell that ``checkpoint`` has no artifact."""
        self._events.on_failure(self._staging.origin(checkpoint), self._staging.with_log_location(checkpoint, error))

    def _start(self, checkpoint: Path, *, look_first: bool = False, is_early: bool = False) -> None:
        self.busy = True
        try:
            if not checkpoint.exists():
                self._staging.fetch(checkpoint)
            self._sweep(checkpoint.parent)
            moment = self._moments[checkpoint]
            twins = tuple(c for c, m in self._moments.items() if m.step == moment.step and c != checkpoint)
            job = self._tracer.job(self._module(), checkpoint, moment, twins)
            if look_first:
                artifact, job = existing(job, elsewhere=self._staging.existing(checkpoint))
                if artifact:
                    self._events.on_artifact(artifact)
                    return
        # whatever happens here, the training goes on; the error is kept and reported
        except Exception as error:
            if is_early:
                self._moments.pop(checkpoint, None)
            else:
                self.failed(checkpoint, error)
            return
        # never in this process, where an executor of the user's may run its threads: what is written to a file in use
        # must not end a training
        elsewhere = isinstance(self.options.executor, str) and self.options.executor != "inline"
        self._builds.add(checkpoint, replace(job, is_mapped=elsewhere))

    def _sweep(self, directory: Path) -> None:
        if directory not in self._swept:
            self._swept.add(directory)
            sweep(directory)

    def _report(self, outcome: Outcome) -> None:
        checkpoint, job, result = outcome
        if isinstance(result, Artifact) and self._staging.is_remote(checkpoint):
            self._staging.send(checkpoint, result)
        elif isinstance(result, Artifact):
            self._events.on_artifact(result)
        elif not checkpoint.exists():
            return  # it went while it was built
        elif isinstance(result, CheckpointError) and isinstance(job.program, SavedProgram) and job.program.weights:
            # the module makes something else of its weights than the last time: it has to load them itself
            self._tracer.retrace = True
            self._moments[checkpoint] = self._moments[checkpoint].past()
            self._start(checkpoint)
        else:
            self.failed(checkpoint, result)

    def _report_uploaded(self) -> None:
        for checkpoint, result in self._staging.done():
            if isinstance(result, Exception):
                self.failed(checkpoint, result)
            else:
                self._events.on_artifact(result)

    def _report_replaced(self) -> None:
        replaced, self._builds.replaced = self._builds.replaced, []
        for checkpoint in replaced:
            self._moments.pop(checkpoint, None)


def in_training_order(paths: Iterable[Path], failed: Callable[[Path, Exception], None]) -> list[tuple[Path, int]]:
    """Look when checkpoints were written.

    Args:
        paths: Files that the Trainer wrote in this run.
        failed: Is told of those that cannot be read.

    Returns:
        Each file with the optimizer steps that had been taken, in the order of training: of those with the same weights
        the later ones share the artifact of the first.
    """
    found: list[tuple[Path, int]] = []
    for path in paths:
        try:
            found.append((path, step_of(path)))
        except LightningTrtError as error:
            failed(path, error)
    return sorted(found, key=lambda item: item[1])


def interrupted(checkpoint: Path | RemoteFile) -> CompileError:
    """Why a checkpoint has no artifact after an interruption."""
    return CompileError(
        f"training was interrupted before it was built; later: lightning-trt-windows export {checkpoint.name} "
        "--module package.module:Class"
    )
