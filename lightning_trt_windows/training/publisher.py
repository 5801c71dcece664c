"""What becomes of artifacts that have been made: the index of their directory, and the Trainer's loggers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_trt_windows._compat.lightning import rank_zero_warn
from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.artifact.windows_names import windows_name
from lightning_trt_windows.errors import ArtifactError, LightningTrtError, UnsupportedFormatError
from lightning_trt_windows.loggers import ArtifactLogging, LogArtifacts
from lightning_trt_windows.loggers.record import LoggedArtifact
from lightning_trt_windows.modules.state import random_state_kept
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of
from lightning_trt_windows.storage.run_index import RunIndex, Standing
from lightning_trt_windows.training.events import Listener

__all__ = ["Publisher"]


class Publisher(Listener):
    """Keeps ``artifacts.json`` and the loggers of one ``trainer.fit`` up to date.

    Args:
        trainer: The Trainer, of the first process.
        choice: What loggers are given.
        later: Runs an action in the thread that deals with other file systems.
    """

    def __init__(self, trainer: Any, choice: LogArtifacts, later: Callable[[Callable[[], None]], None]) -> None:
        self._trainer = trainer
        self._later = later
        self._indexed: dict[str, Path | RemoteFile] = {}
        every = any(getattr(callback, "save_top_k", None) == -1 for callback in trainer.checkpoint_callbacks)
        self._logging = ArtifactLogging(trainer.loggers, choice, every=every, warn=_warn)

    def on_artifact(self, artifact: Artifact) -> None:
        """Put it into the index of its directory and give it to the loggers."""
        place = place_of(artifact.url) if artifact.url else artifact.path
        directory = _parent(place)
        standings = self._standings(directory)
        try:
            here = artifact.manifest_path
            data = here.read_bytes() if here.is_file() else artifact.manifest.to_json().encode()
            self._indexed[place.name] = directory
            self._index(directory, lambda index: index.with_artifact(artifact, data).judged(standings))
            with random_state_kept():  # loggers make names for things
                self._logging.on_artifact(self._judged(LoggedArtifact(artifact, self._trainer.global_step)))
        except (LightningTrtError, OSError) as error:
            _warn(str(error))

    def on_removed(self, ep: Path, checkpoint: Path | RemoteFile) -> None:
        """Take it out of the index and tell the loggers."""
        name = ArtifactPaths.beside(checkpoint.name).ep.name
        self._logging.on_removed(name.removesuffix(".ep").removesuffix(".windows"))
        directory = _parent(checkpoint)
        standings = self._standings(directory)
        self._index(directory, lambda index: index.without(name).judged(standings))

    def on_finished(self) -> None:
        """Bring the index and the loggers to their final state."""
        for directory in dict.fromkeys(self._indexed.values()):
            self._index(directory, functools.partial(_judged_index, self._standings(directory)))
        with random_state_kept():
            self._logging.finish(self._judged)

    def _index(self, directory: Path | RemoteFile, change: Callable[[RunIndex], RunIndex]) -> None:
        def write() -> None:
            try:
                index: RunIndex | None = None
                try:
                    index = RunIndex.read(directory)
                except UnsupportedFormatError:
                    raise
                except ArtifactError:
                    # there is none yet, and there may be artifacts of earlier runs
                    changed = change(RunIndex.of_manifests(directory))
                else:
                    changed = change(index)
                if changed != (index or RunIndex()):
                    changed.write(directory)
            # an index may have been edited by hand, and other file systems raise what they like
            except Exception as error:
                _warn(f"artifacts.json in {directory} is not up to date: {type(error).__name__}: {error}")

        if isinstance(directory, Path):
            write()
        else:
            self._later(write)

    def _judged(self, record: LoggedArtifact) -> LoggedArtifact:
        artifact = record.artifact
        directory = _parent(place_of(artifact.url) if artifact.url else artifact.path)
        checkpoint = artifact.manifest.checkpoint
        standing = self._standings(directory).get(checkpoint.file if checkpoint else "", Standing())
        step = checkpoint.global_step if checkpoint and checkpoint.global_step is not None else record.step
        return LoggedArtifact(artifact, step, standing.best, standing.monitor, standing.score)

    def _standings(self, directory: Path | RemoteFile) -> dict[str, Standing]:
        """By the name of each checkpoint in ``directory`` that a ModelCheckpoint knows; the first to know it counts."""
        standings: dict[str, Standing] = {}
        for callback in self._trainer.checkpoint_callbacks:
            for path, standing in _kept_by(callback):
                place = place_of(path)
                if _same(_parent(place), directory):
                    standings.setdefault(windows_name(place.name), standing)
        return standings


def _kept_by(callback: Any) -> Iterator[tuple[str, Standing]]:
    best, last = getattr(callback, "best_model_path", ""), getattr(callback, "last_model_path", "")
    scores = {path: float(score) for path, score in getattr(callback, "best_k_models", {}).items()}
    if best and best not in scores and getattr(callback, "best_model_score", None) is not None:
        scores[best] = float(callback.best_model_score)
    monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
    for path in dict.fromkeys(filter(None, (*scores, best, last))):
        score = scores.get(path) if monitor else None
        standing = Standing(best=path == best, last=path == last)
        yield path, standing if score is None else replace(standing, monitor=monitor, mode=mode, score=score)


def _judged_index(standings: Mapping[str, Standing], index: RunIndex) -> RunIndex:
    return index.judged(standings)


def _parent(place: Path | RemoteFile) -> Path | RemoteFile:
    return place.parent if isinstance(place, Path) else RemoteFile(place.parent)


def _same(one: Path | RemoteFile, other: Path | RemoteFile) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return os.path.realpath(one) == os.path.realpath(other)
    return one == other


def _warn(message: str) -> None:
    rank_zero_warn(f"WindowsExport: {message}")
