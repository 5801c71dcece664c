"""What becomes of the exports of a run, told to whoever listens: outcomes, the run's index, loggers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.storage.remote_file import RemoteFile
from lightning_trt_windows.training.guard import Guard

__all__ = ["Events", "Listener"]


class Listener:
    """Hears what becomes of exports. Each method does nothing unless a listener overrides it."""

    def on_artifact(self, artifact: Artifact) -> None:
        """An artifact is complete, here or elsewhere."""

    def on_removed(self, ep: Path, checkpoint: Path | RemoteFile) -> None:
        """The artifact of ``checkpoint`` was deleted; ``ep`` is where it stood on this machine."""

    def on_failure(self, checkpoint: Path | RemoteFile | None, error: Exception) -> None:
        """``checkpoint`` has no artifact; ``None`` where it failed before there was a checkpoint."""

    def on_finished(self) -> None:
        """The training and all its exports have finished."""


class Events(Listener):
    """Tells every listener, each behind the guard: what one of them raises reaches neither the others nor the training.

    Args:
        guard: Keeps exceptions away from the training.
        listeners: Told in this order.
    """

    def __init__(self, guard: Guard, listeners: Sequence[Listener]) -> None:
        self._guard = guard
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """Tell ``listener`` too from now on."""
        self._listeners.append(listener)

    def on_artifact(self, artifact: Artifact) -> None:
        """Pass it on."""
        self._tell("on_artifact", artifact)

    def on_removed(self, ep: Path, checkpoint: Path | RemoteFile) -> None:
        """Pass it on."""
        self._tell("on_removed", ep, checkpoint)

    def on_failure(self, checkpoint: Path | RemoteFile | None, error: Exception) -> None:
        """Pass it on."""
        self._tell("on_failure", checkpoint, error)

    def on_finished(self) -> None:
        """Pass it on."""
        self._tell("on_finished")

    def _tell(self, event: str, *arguments: Any) -> None:
        for listener in self._listeners:
            with self._guard(f"{type(listener).__name__}.{event}"):
                getattr(listener, event)(*arguments)
