"""What became of the exports of a callback: its artifacts and failures, and how they are told."""

from __future__ import annotations

from pathlib import Path

from lightning_trt_windows._compat.lightning import rank_zero_info, rank_zero_warn
from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.builds.queue import Failure
from lightning_trt_windows.progress.display import Display, first_words, summary_row
from lightning_trt_windows.storage.remote_file import RemoteFile
from lightning_trt_windows.training.publisher import Collection
from lightning_trt_windows.verification.at_export import failure_of

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
        self.collection: Collection | None = None
        """Of the run that goes on."""
        self.new_artifacts: list[Artifact] = []
        """Those of this run."""
        self._told = 0

    def begin(self) -> None:
        """What has failed until now is of an earlier run."""
        self._told = len(self.failures)
        self.new_artifacts = []

    @property
    def new_failures(self) -> list[Failure]:
        """Those of this run."""
        return self.failures[self._told :]

    @property
    def count(self) -> int:
        """How many checkpoints of this run have been seen to."""
        return len(self.new_artifacts) + len(self.new_failures)

    def summarise(self, display: Display) -> None:
        """Show what came of this run."""
        rows = [summary_row(artifact) for artifact in self.new_artifacts]
        failed = [f"{f.checkpoint.name if f.checkpoint else 'this run'}: {_reason(f)}" for f in self.new_failures]
        if rows or failed:
            display.summary(rows, failed)

    def made(self, artifact: Artifact) -> None:
        """An artifact is there."""
        self.artifacts = [a for a in self.artifacts if a.path != artifact.path] + [artifact]
        self.new_artifacts = [a for a in self.new_artifacts if a.path != artifact.path] + [artifact]
        for note in artifact.manifest.notes:
            rank_zero_info(f"WindowsExport: {note}")
        rank_zero_info(f"WindowsExport: {artifact}")
        if self.collection is not None:
            self.collection.made(artifact)
        if error := failure_of(artifact):
            source = artifact.manifest.checkpoint
            self.failed(artifact.path.with_name(source.file) if source else None, error)

    def gone(self, checkpoint: Path) -> None:
        """The artifact of ``checkpoint`` is there no longer."""
        gone = ArtifactPaths.beside(checkpoint).ep
        self.artifacts = [a for a in self.artifacts if a.path != gone]
        self.new_artifacts = [a for a in self.new_artifacts if a.path != gone]
        if self.collection is not None:
            self.collection.gone(checkpoint)

    def finish(self) -> None:
        """Training has finished, and so have its exports."""
        if self.collection is not None:
            self.collection.finish()

    def failed(self, checkpoint: Path | RemoteFile | None, error: Exception) -> None:
        """``checkpoint`` has no artifact; ``None`` where it failed before there was one."""
        failure = Failure(checkpoint, error)
        self.failures.append(failure)
        if self.on_error == "warn":
            rank_zero_warn(f"WindowsExport: {failure}")


def _reason(failure: Failure) -> str:
    return f"{type(failure.error).__name__}: {first_words(str(failure.error))}"
