"""The builds of one run: which are waiting, which are under way, and what became of them."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, read_artifact, remove_manifest
from lightning_trt_windows.artifact.windows_names import windows_name
from lightning_trt_windows.builds.executors.stall import StallWatch
from lightning_trt_windows.errors import ArtifactError, LightningTrtError
from lightning_trt_windows.export.job import Job
from lightning_trt_windows.export.pipeline import build
from lightning_trt_windows.storage.remote_file import RemoteFile

__all__ = ["Builds", "Failure", "Outcome", "remove_artifact"]


_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """An artifact that could not be made."""

    checkpoint: Path | RemoteFile | None
    """The checkpoint it was for; ``None`` where it failed before there was one."""
    error: Exception

    def __str__(self) -> str:
        name = self.checkpoint.name if self.checkpoint else "this run"
        return f"no Windows artifact for {name}: {type(self.error).__name__}: {self.error}"


class Outcome(NamedTuple):
    """What became of a build."""

    checkpoint: Path
    job: Job
    result: Artifact | Exception


class _Pending(NamedTuple):
    checkpoint: Path
    job: Job


class Builds:
    """Hands jobs to an executor, never more than ``most`` at a time, and forgets those that nobody wants any more.

    Args:
        executor: Any ``concurrent.futures.Executor``.
        most: Jobs that are submitted and not finished. The others wait here: a file each, and no memory.
        replace_queued: Let a newer checkpoint take the place of older ones that still wait.
        tell: Is given a line where nothing moves for some time.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        most: int,
        replace_queued: bool,
        tell: Callable[[str], None] = _LOGGER.warning,
    ) -> None:
        self.executor = executor
        self.most = most
        self.replace_queued = replace_queued
        self.replaced: list[Path] = []
        """Checkpoints that newer ones have taken the place of."""
        self._waiting: list[_Pending] = []
        self._running: dict[Future[Artifact], _Pending] = {}
        self._unwanted: set[Future[Artifact]] = set()
        self._stall = StallWatch(executor, tell)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def wanted(self) -> int:
        """How many there are without those that were given up and have not ended yet."""
        return len(self._waiting) + sum(future not in self._unwanted for future in self._running)

    def add(self, checkpoint: Path, job: Job) -> None:
        """Build ``job``; an older build for the same checkpoint file is given up."""
        self.drop(checkpoint)
        if self.replace_queued:
            queued = [f for f in self._running if not f.running() and f.cancel()]
            self.replaced += [p.checkpoint for p in (*(self._running.pop(f) for f in queued), *self._waiting)]
            self._waiting = []
        self._waiting.append(_Pending(checkpoint, job))
        self._submit()

    def drop(self, checkpoint: Path) -> None:
        """Give up what is waiting or under way for ``checkpoint``."""
        self._waiting = [p for p in self._waiting if p.checkpoint != checkpoint]
        for future, pending in list(self._running.items()):
            if pending.checkpoint == checkpoint and future not in self._unwanted:
                future.cancel()
                self._unwanted.add(future)

    def collect(self) -> list[Outcome]:
        """What has finished since the last time."""
        look_after = getattr(self.executor, "look_after", None)
        if look_after is not None:  # those of ours, whose threads may have ended
            look_after()
        outcomes = []
        for future in [f for f in self._running if f.done()]:
            pending = self._running.pop(future)
            if future in self._unwanted:
                self._unwanted.discard(future)
                if not pending.checkpoint.exists():  # it was finished before it could be cancelled
                    remove_artifact(pending.checkpoint)
                continue
            outcomes.append(Outcome(*pending, _result(future)))
        self._submit()
        self._stall.look(self._running)
        return outcomes

    def doing(self) -> str:
        """What is being built, how far it is, and how many builds there are besides, for people to see."""
        wanted = [f for f in self._running if f not in self._unwanted and not f.done()]
        # Dask's futures do not say that they run: as many do as there are workers
        running = [f for f in wanted if f.running()]
        workers = 0 if running else self._workers()
        running = running or wanted[: max(1, workers)]
        if not running:
            return ""
        first = running[0]
        text = f"{self._running[first].job.paths.ep.name}: {'build' if workers else _stage(first)}"
        queued = len(wanted) - len(running) + len(self._waiting)
        more = [f"{len(running) - 1} more at work"] if len(running) > 1 else []
        more += [f"{queued} queued"] if queued else []
        return f"{text} ({', '.join(more)})" if more else text

    def _workers(self) -> int:
        """How many workers the executor has at this moment, if its futures do not say that they run; else 0."""
        try:
            return 0 if getattr(self.executor, "tells_running", True) else int(self.executor.workers)  # type: ignore[attr-defined]
        # whatever a scheduler that has gone makes of it: this is for people to see, and no more
        except Exception:
            return 0

    def finish(self, report: Callable[[Outcome], None], look: Callable[[], None] = lambda: None) -> None:
        """Wait for everything, report each outcome as it comes, and ``look`` every now and then."""
        while len(self):
            for outcome in self.collect():
                report(outcome)
            look()
            self.wait_for_one()

    def wait_for_one(self, timeout: float = 0.5) -> None:
        """Wait until one of those that the executor has is finished, for at most ``timeout`` seconds."""
        if self._running:
            wait(self._running, timeout=timeout, return_when="FIRST_COMPLETED")

    def cancel(self) -> list[Path]:
        """Give up everything; gives back the checkpoints that have no artifact for it."""
        given_up = [p.checkpoint for f, p in self._running.items() if f not in self._unwanted]
        given_up += [p.checkpoint for p in self._waiting]
        self._waiting = []
        for future in self._running:
            future.cancel()
        self._running.clear()
        self._unwanted.clear()
        return given_up

    def _submit(self) -> None:
        for pending in list(self._waiting):
            if len(self._running) >= self.most:
                return
            if self._waits_for_twin(pending):
                continue
            self._waiting.remove(pending)
            try:
                future = self.executor.submit(build, pending.job)
            except Exception as error:  # a pool whose workers have died, a scheduler that has gone
                future = Future()
                future.set_exception(error)
            self._running[future] = pending

    def _waits_for_twin(self, pending: _Pending) -> bool:
        """Whether a checkpoint that may have the same weights comes first: beside it the same would be built twice."""
        under_way = {p.checkpoint for f, p in self._running.items() if f not in self._unwanted and not f.done()}
        earlier = {p.checkpoint for p in self._waiting[: self._waiting.index(pending)]}
        return not (under_way | earlier).isdisjoint(pending.job.twins)


def _stage(future: Future[Artifact]) -> str:
    return getattr(future, "doing", "") or ("build" if future.running() else "waits")


def _result(future: Future[Artifact]) -> Artifact | Exception:
    try:
        return future.result()
    except CancelledError as error:
        return RuntimeError(f"the build was cancelled by its executor: {error}")
    # the executor's own errors, and what its workers died of
    except Exception as error:
        return error


def remove_artifact(checkpoint: Path) -> bool:
    """Delete the artifact of ``checkpoint``, if what stands there is one and says that it is of that checkpoint."""
    paths = ArtifactPaths.beside(checkpoint)
    shutil.rmtree(paths.failed, ignore_errors=True)
    with contextlib.suppress(OSError):
        paths.log.unlink()
    try:
        manifest = read_artifact(paths.ep).manifest
        record = manifest.checkpoint
    except ArtifactError:
        return False
    if record is None or record.file != windows_name(checkpoint.name):
        return False
    try:
        remove_manifest(paths)  # first: without it the rest is no artifact
    except LightningTrtError:
        return False
    for path in (paths.ep, *paths.optional(len(manifest.engines))):
        path.unlink(missing_ok=True)
    return True
