"""Where an artifact goes that is made without a Trainer: a directory of this machine, or elsewhere."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.errors import LightningTrtError, OutputError
from lightning_trt_windows.storage.remote_artifact import RemoteArtifact
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of, temporary_directory
from lightning_trt_windows.storage.run_index import RunIndex

__all__ = ["Destination"]


@dataclass(frozen=True)
class Destination:
    """Paths to build at, and what is left to do then."""

    paths: ArtifactPaths
    """Paths on this machine."""
    remote: RemoteArtifact | None = None
    """Where it has to be uploaded."""

    @classmethod
    def of(
        cls,
        checkpoint: Path | RemoteFile,
        output: str | os.PathLike[str] | None,
        *,
        staging: Path | None = None,
    ) -> Destination:
        """Say where the artifact of ``checkpoint`` goes: to the directory ``output``, by default the checkpoint's own.

        Args:
            checkpoint: The checkpoint.
            output: Directory or URL for the artifact.
            staging: Directory to build in what has to be uploaded; by default one that goes when the process ends.

        Returns:
            The destination.

        Raises:
            OutputError: ``output`` is a file, or a directory that cannot be made.
        """
        directory = None if output is None else place_of(output)
        place: Path | RemoteFile = checkpoint
        if isinstance(directory, Path):
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(_cannot_be_made(directory, error)) from error
            place = directory / checkpoint.name
        elif isinstance(directory, RemoteFile):
            place = directory.child(checkpoint.name)
        remote = RemoteArtifact.beside(place) if isinstance(place, RemoteFile) else None
        local = (staging or temporary_directory()) / place.name if isinstance(place, RemoteFile) else place
        return cls(ArtifactPaths.beside(local), remote)

    def finished(self, artifact: Artifact) -> Artifact:
        """Upload ``artifact`` where it has to be, and add it to the index of its directory if there is one.

        Returns:
            The artifact as it is in its final place.

        Raises:
            OutputError: The artifact cannot be uploaded; the message says where it is whole on this machine.
        """
        if self.remote is not None:
            artifact = self.remote.upload(artifact)
            directory: Path | RemoteFile = self.remote.directory
        else:
            directory = artifact.path.parent
        with contextlib.suppress(LightningTrtError):  # no index, or none of ours
            RunIndex.read(directory).with_artifact(artifact, artifact.manifest_path.read_bytes()).write(directory)
        return artifact


def _cannot_be_made(directory: Path, error: OSError) -> str:
    """Say what stands in the way of ``directory``, and where artifacts go without it."""
    there = next((path for path in (directory, *directory.parents) if path.exists()), None)
    what = (
        f"{there} is a file"
        if there is not None and not there.is_dir()
        else f"{there or directory}: {error.strerror or error}"
    )
    return (
        f"the directory {directory} for artifacts cannot be made: {what}. Name another one, or leave output away: the "
        "artifact then goes beside its checkpoint"
    )
