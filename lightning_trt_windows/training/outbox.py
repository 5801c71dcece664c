"""Artifacts and failures on their way from a process that trains to the callback that its user holds.

``ddp_spawn`` and the strategies of notebooks train in other processes, on copies of the callback, and nothing that a
copy keeps comes back. So the first of these processes leaves word in a small file, under a name that only the two know,
and the user's object reads it when it is asked.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_trt_windows import errors
from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.builds.queue import Failure
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of
from lightning_trt_windows.training.events import Listener
from lightning_trt_windows.training.outcomes import Outcomes

__all__ = ["Outbox"]


class Outbox(Listener):
    """Hands the outcomes of a copy in a child process to the original.

    Args:
        outcomes: Those of the callback that this belongs to.
        address: That of the original; by default this is the original, with an address of its own.
    """

    def __init__(self, outcomes: Outcomes, address: tuple[str, int] | None = None) -> None:
        self._outcomes = outcomes
        self.address = address or (secrets.token_hex(16), os.getpid())
        """A name that nobody can guess, and the process of the original."""

    @property
    def _path(self) -> Path:
        return Path(tempfile.gettempdir()) / f"lightning-trt-windows-{self.address[0]}.json"

    def on_artifact(self, artifact: Artifact) -> None:
        """Leave word."""
        self._send()

    def on_removed(self, ep: Path, checkpoint: Path | RemoteFile) -> None:
        """Leave word."""
        self._send()

    def on_failure(self, checkpoint: Path | RemoteFile | None, error: Exception) -> None:
        """Leave word."""
        self._send()

    def on_finished(self) -> None:
        """Leave word."""
        self._send()

    def collect(self) -> None:
        """Take what a child process has left."""
        if os.getpid() != self.address[1]:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            status = self._path.stat()
            if status.st_uid != os.getuid():
                return
            word = json.loads(self._path.read_text(encoding="utf-8"))
            self._path.unlink()
            artifacts = [_artifact(entry) for entry in word["artifacts"]]
            paths = {artifact.path for artifact in artifacts}
            kept = [artifact for artifact in self._outcomes.artifacts if artifact.path not in paths]
            self._outcomes.artifacts[:] = [*kept, *artifacts]
            self._outcomes.failures.extend(_failure(entry) for entry in word["failures"])

    def _send(self) -> None:
        if not self._is_in_a_child():
            return
        word = {
            "artifacts": [
                {"path": str(a.path), "url": a.url, "manifest": a.manifest.to_json()}
                for a in self._outcomes.new_artifacts
            ],
            "failures": [
                {"checkpoint": _place(f.checkpoint), "error": type(f.error).__name__, "text": str(f.error)}
                for f in self._outcomes.new_failures
            ],
        }
        written = self._path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(word, stream)
        written.replace(self._path)

    def _is_in_a_child(self) -> bool:
        """Whether the process of the original waits for this one; it does not for a copy that was read from a file."""
        home, parent = self.address[1], multiprocessing.parent_process()
        return os.getpid() != home and home in (os.getppid(), parent.pid if parent else None)


def _place(checkpoint: Path | RemoteFile | None) -> str | None:
    return None if checkpoint is None else checkpoint.url if isinstance(checkpoint, RemoteFile) else str(checkpoint)


def _artifact(entry: Mapping[str, Any]) -> Artifact:
    return Artifact(Path(entry["path"]), Manifest.from_json(entry["manifest"], str(entry["path"])), entry["url"])


def _failure(entry: Mapping[str, Any]) -> Failure:
    kind = getattr(errors, str(entry["error"]), None)
    ours = isinstance(kind, type) and issubclass(kind, errors.LightningTrtError)
    error = kind(entry["text"]) if ours else RuntimeError(f"{entry['error']}: {entry['text']}")  # type: ignore[misc]
    return Failure(None if entry["checkpoint"] is None else place_of(entry["checkpoint"]), error)
