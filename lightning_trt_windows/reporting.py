"""What became of the exports of a callback: its artifacts and failures, and how they are told."""

from __future__ import annotations

from pathlib import Path

from lightning_trt_windows._compat.lightning import rank_zero_info, rank_zero_warn
from lightning_trt_windows.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.builds.run import Failure
from lightning_trt_windows.storage import RemoteFile

__all__ = ["Report"]


class Report:
    """Keeps what was made and what went wrong, and says so as it comes.

    Args:
        on_error: ``"warn"``: each failure is a warning at once; ``"raise"``: the callback raises it when all is done.
    """

    def __init__(self, on_error: str) -> None:
        self.on_error = on_error
        self.artifacts: list[Artifact] = []
        """What is there, newest last."""
        self.failures: list[Failure] = []
        self._told = 0

    def begin(self) -> None:
        """What has failed until now is of an earlier run."""
        self._told = len(self.failures)

    @property
    def new_failures(self) -> list[Failure]:
        """Those of this run."""
        return self.failures[self._told :]

    def made(self, artifact: Artifact) -> None:
        """An artifact is there."""
        self.artifacts = [a for a in self.artifacts if a.path != artifact.path] + [artifact]
        for note in artifact.manifest.notes:
            rank_zero_info(f"WindowsExport: {note}")
        rank_zero_info(f"WindowsExport: {artifact}")

    def gone(self, checkpoint: Path) -> None:
        """The artifact of ``checkpoint`` is there no longer."""
        gone = ArtifactPaths.beside(checkpoint).ep
        self.artifacts = [a for a in self.artifacts if a.path != gone]

    def failed(self, checkpoint: Path | RemoteFile | None, error: Exception) -> None:
        """``checkpoint`` has no artifact; ``None`` where it failed before there was one."""
        failure = Failure(checkpoint, error)
        self.failures.append(failure)
        if self.on_error == "warn":
            rank_zero_warn(f"WindowsExport: {failure}")
