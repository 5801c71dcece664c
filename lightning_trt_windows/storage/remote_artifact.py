"""Artifacts elsewhere: uploaded whole, the manifest last, and fetched back. At import the standard library only."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, check_artifact, parse_manifest
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.windows_names import windows_name
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, OutputError
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of, temporary_directory

__all__ = ["RemoteArtifact", "fetch", "fetch_run", "local_copy"]


@dataclass(frozen=True)
class RemoteArtifact:
    """The files of an artifact in a remote directory."""

    directory: RemoteFile
    names: ArtifactPaths
    """What each file is called; its directory says nothing."""

    @classmethod
    def beside(cls, checkpoint: RemoteFile) -> RemoteArtifact:
        """Name the artifact of ``checkpoint``, in its directory."""
        return cls(RemoteFile(checkpoint.parent), ArtifactPaths.beside(checkpoint.name))

    @classmethod
    def of(cls, url: str) -> RemoteArtifact:
        """Name the artifact that ``url`` belongs to: its ``.ep`` or its ``.json``.

        Returns:
            The artifact's place; nothing need be there.

        Raises:
            ConfigurationError: ``url`` has another ending, or a name that is illegal on Windows.
        """
        file = RemoteFile(url)
        return cls(RemoteFile(file.parent), ArtifactPaths.of(file.name))

    @property
    def ep(self) -> RemoteFile:
        """The program with its engines."""
        return self.directory.child(self.names.ep.name)

    @property
    def manifest(self) -> RemoteFile:
        """The manifest."""
        return self.directory.child(self.names.manifest.name)

    def optional(self, manifest: Manifest) -> list[RemoteFile]:
        """What an artifact of this manifest may have besides its ``.ep`` and its manifest."""
        return [self.directory.child(path.name) for path in self.names.optional(len(manifest.engines))]

    def read(self) -> Artifact:
        """What its manifest says; the ``.ep`` stays where it is, and only its size is looked at.

        Returns:
            The artifact, with the URL of its ``.ep``.

        Raises:
            ArtifactError: There is no manifest, it is damaged, or the ``.ep`` is not the one that it describes.
        """
        try:
            manifest = parse_manifest(self.manifest.read(), self.manifest.url)
            size = self.ep.size()
        except FileNotFoundError as error:
            raise ArtifactError(self.manifest, ["does not exist"]) from error
        except OSError as error:
            raise ArtifactError(self.manifest, [f"cannot be read: {error}"]) from error
        if manifest.ep.file != self.ep.name or size != manifest.ep.size:
            found = "does not exist" if size is None else f"has {size} bytes instead of {manifest.ep.size}"
            raise ArtifactError(self.manifest, [f"describes {manifest.ep.file}; {self.ep.name} {found}"])
        return Artifact(Path(self.ep.name), manifest, url=self.ep.url)

    def upload(self, artifact: Artifact) -> Artifact:
        """Put the files of ``artifact`` here, its manifest last.

        Returns:
            The same artifact, with its URL.

        Raises:
            OutputError: The upload was refused. There is then no artifact here; the files of this machine are still
                there.
        """
        local = artifact.paths
        target = self.manifest
        try:
            target.remove()  # an older one must not vouch for a newer .ep
            optional = local.optional(len(artifact.manifest.engines))
            for path in (local.ep, *(path for path in optional if path.is_file())):
                target = self.directory.child(path.name)
                target.upload(path)
            target = self.manifest
            target.upload(local.manifest)
        except OSError as error:
            raise OutputError(
                f"cannot write {target}: {error}. The artifact is whole on this machine: copy {local.ep} to "
                f"{self.directory}/, then {local.manifest.name}; or see that the place can be written to "
                f"({readable_size(artifact.size)}, credentials) and export again"
            ) from error
        return replace(artifact, url=self.ep.url)

    def remove(self, checkpoint: str) -> bool:
        """Delete it, if what stands here is one and says that it is of the file ``checkpoint``.

        Returns:
            Whether it was there.

        Raises:
            OSError: The file system refused to delete it.
        """
        try:
            manifest = parse_manifest(self.manifest.read(), self.manifest.url)
        except (ArtifactError, FileNotFoundError):
            return False
        if manifest.checkpoint is None or manifest.checkpoint.file != windows_name(checkpoint):
            return False
        self.manifest.remove()  # first: without it the rest is no artifact
        self.ep.remove()
        for file in self.optional(manifest):
            file.remove()
        return True

    def fetch(self, directory: Path) -> Artifact:
        """Copy it into ``directory``, the manifest last, and check it.

        Returns:
            The artifact on this machine.

        Raises:
            ArtifactError: The artifact is missing or incomplete.
        """
        found = self.read()
        try:
            self.ep.download(directory / self.ep.name)
            for file in self.optional(found.manifest):
                if file.size() is not None:
                    file.download(directory / file.name)
            self.manifest.download(directory / self.manifest.name)
        except OSError as error:
            raise ArtifactError(self.ep, [f"cannot be copied to {directory}: {error}"]) from error
        return replace(check_artifact(directory / self.ep.name), url=found.url)


def fetch(url: str | os.PathLike[str], directory: str | os.PathLike[str] | None = None) -> Path:
    """Copy an artifact from ``s3://`` or another place that fsspec knows to this machine, and check it.

    Args:
        url: Of its ``.ep`` or of its ``.json``.
        directory: Where it goes; by default a new temporary directory, which is deleted when the process ends.

    Returns:
        The ``.ep``, with its manifest beside it: what ``lightning_trt_windows.load`` and
        ``lightning_trt_windows.inspect`` take. The path of an artifact of this machine is given back as it is.

    Raises:
        ArtifactError: The artifact is missing, or its content differs from its manifest.
        ConfigurationError: No installed package knows the protocol of ``url``.
    """
    place = place_of(url)
    if isinstance(place, Path):
        return check_artifact(ArtifactPaths.of(place).ep).path
    target = temporary_directory() if directory is None else Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    return RemoteArtifact.of(place.url).fetch(target).path


def fetch_run(url: str | os.PathLike[str], directory: str | os.PathLike[str] | None = None) -> Path:
    """Copy every artifact of a run to this machine, each into the folder below that it has below ``url``.

    Args:
        url: A directory with artifacts in it or below it.
        directory: Where they go; by default a new temporary directory, which is deleted when the process ends.

    Returns:
        The directory. That of a run on this machine is given back as it is.

    Raises:
        ArtifactError: There is no artifact, or one of them is damaged.
    """
    place = place_of(url)
    if isinstance(place, Path):
        return place
    target = temporary_directory() / place.name if directory is None else Path(directory)
    count = 0
    for manifest in place.below(".json"):
        try:
            artifact = RemoteArtifact.of(manifest.url)
            artifact.read()
        except (ArtifactError, ConfigurationError):  # other files of JSON
            continue
        # names elsewhere may be of any kind: "..", or with a colon
        folder = target.joinpath(*map(windows_name, manifest.folders_below(place)))
        folder.mkdir(parents=True, exist_ok=True)
        artifact.fetch(folder)
        count += 1
    if not count:
        raise ArtifactError(place, ["there is no artifact in it or below it"])
    return target


def local_copy(file: str | os.PathLike[str]) -> Path:
    """Copy what a command names to this machine, if it is a URL: an artifact, all of a directory, or any other file.

    Args:
        file: A path, which need not exist, or the URL of an artifact's ``.ep`` or ``.json``, of a bundle, a checkpoint
            or a directory.

    Returns:
        A path of this machine, of the same name; a path is given back as it is.

    Raises:
        ArtifactError: There is nothing at the URL, or the artifact there is damaged.
        ConfigurationError: No installed package knows the protocol of the URL.
    """
    place = place_of(file)
    if isinstance(place, Path):
        return place
    if place.name.lower().endswith((".ep", ".json")):
        return fetch(place.url)
    try:
        if place.is_directory():
            return fetch_run(place.url)
        target = temporary_directory() / windows_name(place.name)
        place.download(target)
    except FileNotFoundError as error:
        raise ArtifactError(place, ["does not exist"]) from error
    except OSError as error:
        raise ArtifactError(place, [f"cannot be copied to this machine: {error}"]) from error
    return target
