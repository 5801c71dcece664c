"""What became of the exports of a callback: its artifacts and failures, and how they are told."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from lightning_trt_windows._compat.lightning import rank_zero_info, rank_zero_warn
from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.description import Description, Section
from lightning_trt_windows.artifact.notebook import as_html
from lightning_trt_windows.artifact.onnx_files import why_no_onnx
from lightning_trt_windows.builds.queue import Failure
from lightning_trt_windows.progress.display import HEADER, Display, first_words, summary_row
from lightning_trt_windows.storage.remote_file import RemoteFile
from lightning_trt_windows.training.events import Listener
from lightning_trt_windows.verification.at_export import failure_of

__all__ = ["Outcomes"]


class ArtifactList(list[Artifact]):
    """A list whose text is one line for each artifact, and in a notebook a small table."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "[]"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(Description("", (_artifacts(self),))) if self else "no artifacts"


class Outcomes(Listener):
    """Keeps artifacts and failures, and tells of each as it comes.

    Args:
        on_error: ``"warn"``: each failure is a warning at once; ``"raise"``: the callback raises it when all is done.
    """

    def __init__(self, on_error: str) -> None:
        self.on_error = on_error
        self.artifacts: list[Artifact] = ArtifactList()
        """Artifacts that exist, those of the newest checkpoint last. Always the same list, which copies of the callback
        share."""
        self.failures: list[Failure] = []
        self.new_artifacts: list[Artifact] = []
        """Artifacts of the run that goes on, in the order of their checkpoints."""
        self._earlier = 0

    def begin(self) -> None:
        """Count from here: what has failed until now is of an earlier run."""
        self._earlier = len(self.failures)
        self.new_artifacts = []

    def as_html(self) -> str:
        """What a notebook shows of the callback."""
        failed = tuple((f.checkpoint.name if f.checkpoint else "this run", _reason(f)) for f in self.failures)
        sections = [_artifacts(self.artifacts)] if self.artifacts else []
        sections += [Section("Failures", failed, bad=True)] if failed else []
        return as_html(Description("WindowsExport" if sections else "WindowsExport: no artifacts yet", tuple(sections)))

    @property
    def new_failures(self) -> list[Failure]:
        """Failures of the run that goes on."""
        return self.failures[self._earlier :]

    @property
    def count(self) -> int:
        """Number of checkpoints of this run that have an artifact or a failure."""
        return len(self.new_artifacts) + len(self.new_failures)

    def summarise(self, display: Display) -> None:
        """Show what came of this run."""
        rows = [summary_row(artifact) for artifact in self.new_artifacts]
        failed = [f"{f.checkpoint.name if f.checkpoint else 'this run'}: {_reason(f)}" for f in self.new_failures]
        if rows or failed:
            display.summary(rows, failed)

    def on_artifact(self, artifact: Artifact) -> None:
        """Keep it, and say what its manifest notes. One that verification found wrong is a failure too."""
        new = [*(a for a in self.new_artifacts if a.path != artifact.path), artifact]
        self.new_artifacts[:] = sorted(new, key=_step)  # several builds at a time end in any order
        paths = {a.path for a in new}
        self.artifacts[:] = [*(a for a in self.artifacts if a.path not in paths), *self.new_artifacts]
        missing = why_no_onnx(artifact)
        for note in artifact.manifest.notes:
            if note != missing:
                rank_zero_info(f"WindowsExport: {note}")
        if missing:
            with contextlib.suppress(Exception):  # of those who turn warnings into errors
                rank_zero_warn(f"WindowsExport: {artifact.path.name} is complete. {missing}")
        rank_zero_info(f"WindowsExport: {artifact}")
        if error := failure_of(artifact):
            source = artifact.manifest.checkpoint
            self.on_failure(artifact.path.with_name(source.file) if source else None, error)

    def on_removed(self, ep: Path, checkpoint: Path | RemoteFile) -> None:
        """Forget it."""
        for artifacts in (self.artifacts, self.new_artifacts):
            artifacts[:] = [a for a in artifacts if a.path != ep]

    def on_failure(self, checkpoint: Path | RemoteFile | None, error: Exception) -> None:
        """Keep it, and warn of it."""
        failure = Failure(checkpoint, error)
        self.failures.append(failure)
        if self.on_error == "warn":
            try:
                rank_zero_warn(f"WindowsExport: {failure}")
            except Exception:  # whoever turns warnings into errors does not want this one to be told of as well
                logging.getLogger(__name__).error("WindowsExport: %s", failure)


def _reason(failure: Failure) -> str:
    return f"{type(failure.error).__name__}: {first_words(str(failure.error))}"


def _step(artifact: Artifact) -> float:
    """Steps that the training had taken; the weights at the end, which have no checkpoint, come after all of them."""
    record = artifact.manifest.checkpoint
    return float("inf") if record is None or record.global_step is None else record.global_step


def _artifacts(artifacts: list[Artifact]) -> Section:
    return Section("", tuple(map(summary_row, artifacts)), heads=tuple(HEADER), numbers=(1, 2, 3, 4))
