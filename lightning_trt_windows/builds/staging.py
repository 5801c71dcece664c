"""Checkpoints on other file systems, as builds see them: copied here to be read, their artifacts sent back.

Builds know paths of this machine only. Here each checkpoint elsewhere has such a path, in a directory that goes when
the run ends.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.errors import ArtifactError, CompileError, OutputError
from lightning_trt_windows.storage.remote_artifact import RemoteArtifact
from lightning_trt_windows.storage.remote_file import RemoteFile, download_checkpoint, staging_directory

__all__ = ["Staging"]


@dataclass(frozen=True)
class _Action:
    checkpoint: Path
    future: Future[Artifact | None]
    wanted: bool = True
    """Whether somebody waits for the artifact; not if it is deleted next."""


_T = TypeVar("_T")

_KEPT = 4
"""Uploaded artifacts that stay for a while: the next checkpoint may have the same weights, as ``last.ckpt`` has."""


class Staging:
    """Paths of this machine for the checkpoints of a run; those that are here already are their own.

    What is done elsewhere while training goes on is done in a thread, one thing after the other, so that an artifact
    that is replaced or deleted ends as it was asked last.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._origins: dict[Path, RemoteFile] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: list[_Action] = []
        self._uploaded: list[Path] = []
        self._something_failed = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._under_way)

    def local(self, checkpoint: Path | RemoteFile) -> Path:
        """Where ``checkpoint`` is, or would be, on this machine."""
        if isinstance(checkpoint, Path):
            return checkpoint
        if self._folder is None:
            self._folder = staging_directory()
        # two directories may have checkpoints of the same name
        directory = self._folder / hashlib.sha256(checkpoint.parent.encode()).hexdigest()[:8]
        directory.mkdir(exist_ok=True)
        path = directory / checkpoint.name
        self._origins[path] = checkpoint
        return path

    def origin(self, checkpoint: Path) -> Path | RemoteFile:
        """What ``local`` was asked for."""
        return self._origins.get(checkpoint, checkpoint)

    def is_remote(self, checkpoint: Path) -> bool:
        """Whether the artifact of ``checkpoint`` has to be sent."""
        return checkpoint in self._origins

    def fetch(self, checkpoint: Path) -> None:
        """Bring ``checkpoint`` here, as it is there now.

        Raises:
            CheckpointError: The checkpoint does not exist or cannot be read.
        """
        if origin := self._origins.get(checkpoint):
            download_checkpoint(origin, checkpoint.parent)

    def existing(self, checkpoint: Path) -> Artifact | None:
        """The complete artifact that stands beside ``checkpoint`` on another file system."""
        origin = self._origins.get(checkpoint)
        if origin is None:
            return None
        try:
            return RemoteArtifact.beside(origin).read()
        except ArtifactError:
            return None

    def send(self, checkpoint: Path, artifact: Artifact) -> None:
        """Upload ``artifact``; ``done`` says what came of it."""
        self._put(checkpoint, lambda: RemoteArtifact.beside(self._origins[checkpoint]).upload(artifact))

    def remove(self, checkpoint: Path) -> None:
        """Delete the artifact of ``checkpoint`` there. Nothing of it stays here either."""

        def remove() -> None:
            origin = self._origins[checkpoint]
            try:
                RemoteArtifact.beside(origin).remove(origin.name)
            except OSError as error:
                raise OutputError(
                    f"the artifact of {origin}, which has been replaced or deleted, cannot be deleted: {error}"
                ) from error

        if self.is_remote(checkpoint):
            same = [action.checkpoint == checkpoint for action in self._under_way]
            self._under_way = [replace(a, wanted=False) if s else a for a, s in zip(self._under_way, same)]
            self._put(checkpoint, remove)

    def later(self, action: Callable[[], None]) -> None:
        """Do ``action`` after what has been asked for until now; after the end, at once."""
        if self._closed:
            action()
        else:
            self._submit(action)

    def done(self) -> list[tuple[Path, Artifact | Exception]]:
        """What has been uploaded since the last time, and what could not be, each with its checkpoint."""
        outcomes: list[tuple[Path, Artifact | Exception]] = []
        waiting, self._under_way = self._under_way, []
        for action in waiting:
            checkpoint = action.checkpoint
            if not action.future.done():
                self._under_way.append(action)
            elif action.future.cancelled() or not action.wanted:
                continue
            elif error := action.future.exception():
                self._something_failed = True
                outcomes.append((checkpoint, error if isinstance(error, Exception) else OutputError(str(error))))
            elif artifact := action.future.result():
                outcomes.append((checkpoint, artifact))
                self._uploaded = [*(c for c in self._uploaded if c != checkpoint), checkpoint]
        while len(self._uploaded) > _KEPT:
            self.forget(self._uploaded.pop(0))
        return outcomes

    def cancel(self) -> list[Path]:
        """Give up what has not begun; gives back the checkpoints whose artifacts have not been sent for it."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        return [action.checkpoint for action in self._under_way if action.wanted and action.future.cancelled()]

    def forget(self, checkpoint: Path) -> None:
        """Delete what is here of ``checkpoint`` if it is only a copy."""
        if self.is_remote(checkpoint):
            paths = ArtifactPaths.beside(checkpoint)
            for path in (checkpoint, paths.manifest, *paths.ep.parent.glob(f"{paths.ep.stem}.*")):
                if not path.is_dir():
                    path.unlink(missing_ok=True)

    def with_log_location(self, checkpoint: Path, error: Exception) -> Exception:
        """``error``, with the place of its log where that is not beside the checkpoint."""
        paths = ArtifactPaths.beside(checkpoint)
        kept = [path.name for path in (paths.failed, paths.log) if path.exists()]
        if not (self.is_remote(checkpoint) and kept):
            return error
        self._something_failed = True
        explained = CompileError(f"{error}\n({' and '.join(kept)} is in {checkpoint.parent} of this machine)")
        explained.__cause__ = error
        return explained

    def close(self) -> None:
        """Wait for what is under way, and delete what is here of what arrived there."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        if self._folder is None:
            return
        if self._something_failed:  # messages have named files here
            for checkpoint in self._uploaded:
                self.forget(checkpoint)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _put(self, checkpoint: Path, action: Callable[[], Artifact | None]) -> None:
        self._under_way.append(_Action(checkpoint, self._submit(action)))

    def _submit(self, action: Callable[[], _T]) -> Future[_T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "lightning-trt-windows-upload")
        return self._thread.submit(action)
