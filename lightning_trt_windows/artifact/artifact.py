"""Artifacts on disk: their names, writing without half files, reading and integrity. Standard library only.

An artifact is an ``.ep`` with its manifest. The manifest is written last, each file appears whole or not at all, and
nothing here unpickles anything. ``docs/format.md`` is the specification.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_trt_windows.artifact.files import atomic_file, explained, readable_size, sha256_of
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.open_elsewhere import patiently, reason_of
from lightning_trt_windows.artifact.windows_names import hash_suffix, illegal_on_windows, legal_form, too_long
from lightning_trt_windows.errors import ArtifactError, ConfigurationError

__all__ = [
    "Artifact",
    "ArtifactPaths",
    "archive_members",
    "artifact_issues",
    "check_artifact",
    "manifest_bytes",
    "parse_manifest",
    "read_artifact",
    "remove_manifest",
    "write_manifest",
]

_LONGEST_STEM = 120
"""Bytes. With the longest suffix and a short folder in a bundle that fits ``bundle.layout.LONGEST``, and so the 260
characters that Windows allows a path."""
_HEADER = 30
"""Bytes before the name of a member and its content."""
_LARGEST_MANIFEST = 1 << 24
"""Bytes. Manifests have some KiB; a reader must not fill its memory with something else."""


@dataclass(frozen=True)
class ArtifactPaths:
    """Where the files of one artifact are."""

    ep: Path
    manifest: Path
    golden: Path
    """Recorded inputs and outputs; optional."""

    @classmethod
    def beside(cls, checkpoint: str | os.PathLike[str]) -> ArtifactPaths:
        """Paths in the directory of ``checkpoint``, legal on Windows even where its name is not.

        Two checkpoints never share an artifact: a name that had to be changed, or does not end in ``.ckpt``, gets a
        hash of the original.
        """
        path = Path(checkpoint)
        stem = legal_form(path.name.removesuffix(".ckpt"), _LONGEST_STEM)
        if f"{stem}.ckpt" != path.name:
            stem += hash_suffix(path.name)
        return cls._with_stem(path.parent, f"{stem}.windows")

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> ArtifactPaths:
        """Paths of the artifact that ``path`` belongs to: its ``.ep`` or its ``.json``.

        Raises:
            ConfigurationError: Another ending, or a name that is illegal on Windows.
        """
        path = Path(path)
        stem, _, suffix = path.name.rpartition(".")
        if not stem or suffix.lower() not in ("ep", "json"):
            advice = f"; perhaps {cls.beside(path).ep.name}" if suffix == "ckpt" else ""
            raise ConfigurationError(f"an artifact is named by its .ep or its .json, got {str(path)!r}{advice}")
        if why := illegal_on_windows(path.name):
            raise ConfigurationError(f"{path.name!r} {why}, which Windows does not allow; choose another name")
        return cls._with_stem(path.parent, stem)

    @classmethod
    def _with_stem(cls, directory: Path, stem: str) -> ArtifactPaths:
        return cls(directory / f"{stem}.ep", directory / f"{stem}.json", directory / f"{stem}.golden.safetensors")


@dataclass(frozen=True)
class Artifact:
    """An ``.ep`` and what its manifest says about it."""

    path: Path
    """The ``.ep``."""
    manifest: Manifest
    url: str | None = None
    """Where the ``.ep`` has been uploaded to, if its checkpoint is on another file system. ``path`` was its place on
    this machine, and need not last."""

    @property
    def manifest_path(self) -> Path:
        """The ``.json`` beside it."""
        return ArtifactPaths.of(self.path).manifest

    @property
    def size(self) -> int:
        """Bytes of the ``.ep``, according to the manifest."""
        return self.manifest.ep.size

    def __str__(self) -> str:
        count = len(self.manifest.engines)
        engines = f"{count} {self.manifest.backend.name} engine{'' if count == 1 else 's'}"
        source = f", from {self.manifest.checkpoint.file}" if self.manifest.checkpoint else ""
        return f"{self.url or self.path} ({readable_size(self.size)}, {engines}{source})"


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write the manifest, which makes the ``.ep`` beside it an artifact: call this last.

    Raises:
        ArtifactError: The manifest could not be read back.
        OutputError: The file cannot be written.
    """
    data = manifest.to_json().encode()
    with atomic_file(path) as file:
        file.write(data)


def remove_manifest(paths: ArtifactPaths) -> None:
    """Make the files at ``paths`` no artifact: call this before the ``.ep`` is written over.

    Otherwise the old manifest would vouch for the new ``.ep`` until it is replaced, or for ever if that never happens.

    Raises:
        OutputError: The manifest cannot be removed.
    """
    with explained(paths.manifest, 0), contextlib.suppress(FileNotFoundError):
        patiently(paths.manifest.unlink, paths.manifest, replaces=True)


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read the manifest of an artifact, named by its ``.ep`` or its ``.json``. The ``.ep`` is not looked at.

    Raises:
        ArtifactError: There is no manifest, it is damaged, or it describes a file of another name.
    """
    paths = ArtifactPaths.of(path)
    manifest = parse_manifest(manifest_bytes(paths), paths.manifest)
    if os.path.normcase(manifest.ep.file) != os.path.normcase(paths.ep.name):
        raise ArtifactError(
            paths.manifest,
            [f"describes {manifest.ep.file}, not {paths.ep.name}; give both files the names that belong together"],
        )
    return Artifact(paths.ep, manifest)


def parse_manifest(data: bytes, where: object) -> Manifest:
    """The manifest that a file's content is; ``where`` names the file in messages.

    Raises:
        ArtifactError: It is none.
    """
    if len(data) > _LARGEST_MANIFEST:
        raise ArtifactError(where, [f"is larger than {_LARGEST_MANIFEST} bytes, so it is not a manifest"])
    try:
        text = data.decode("utf-8-sig")  # editors on Windows may have put a byte order mark
    except UnicodeDecodeError as error:
        raise ArtifactError(where, [f"is not UTF-8 text: {error}"]) from error
    return Manifest.from_json(text, str(where))


def check_artifact(artifact: Artifact | str | os.PathLike[str]) -> Artifact:
    """Compare an artifact with its manifest, byte for byte, before anything trusts it.

    Raises:
        ArtifactError: All that is wrong.
    """
    if not isinstance(artifact, Artifact):
        artifact = read_artifact(artifact)
    if issues := list(artifact_issues(artifact)):
        raise ArtifactError(artifact.path, issues)
    return artifact


def artifact_issues(artifact: Artifact, *, content: bool = True) -> Iterator[str]:
    """What is wrong with the ``.ep``, sentence by sentence; without ``content`` its bytes are not hashed."""
    record = artifact.manifest.ep
    try:
        size = artifact.path.stat().st_size
        if size != record.size:
            yield f"has {size} bytes instead of {record.size}: incomplete, or of another export than its manifest"
        elif content and (found := sha256_of(artifact.path)) != record.sha256:
            yield f"its content is not that of the export: SHA-256 is {found} instead of {record.sha256}"
        members = archive_members(artifact.path)
        compressed = [name for name, info in members.items() if info.compress_type != zipfile.ZIP_STORED]
        # a few kilobytes of it become gigabytes when they are read
        yield from (f"member {name!r} is compressed, which no member of an .ep is" for name in compressed)
        yield from _location_issues(artifact.manifest, members)
    except FileNotFoundError:
        yield f"does not exist{too_long(artifact.path) or '; copy it together with its manifest'}"
    except OSError as error:
        yield f"cannot be read: {reason_of(error, artifact.path)}"
    except ArtifactError as error:
        yield from error.issues


def archive_members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Directory of the zip archive that an ``.ep`` is; no member is read.

    Raises:
        ArtifactError: Not a zip archive, or a name stands in it twice.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    # what zipfile raises on damaged directories: struct.error and ValueError where a length or a name is nonsense
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise ArtifactError(path, [f"is not a readable zip archive, which an .ep is: {error}"]) from error
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise ArtifactError(path, ["has two members of the same name"])
    size = path.stat().st_size
    outside = [name for name, info in members.items() if info.header_offset < 0 or _end(info) > size]
    if outside:
        raise ArtifactError(path, [f"member {name!r} would lie outside of the file" for name in outside])
    return members


def _end(info: zipfile.ZipInfo) -> int:
    """Where the file must end at the earliest for this member to be in it."""
    stored = info.file_size if info.compress_type == zipfile.ZIP_STORED else 0
    return info.header_offset + _HEADER + max(info.compress_size, stored)


def manifest_bytes(paths: ArtifactPaths) -> bytes:
    """The manifest as it stands in its file.

    Raises:
        ArtifactError: It cannot be read.
    """
    try:
        with patiently(lambda: paths.manifest.open("rb"), paths.manifest) as stream:
            return stream.read(_LARGEST_MANIFEST + 1)
    except FileNotFoundError as error:
        orphan = f"{paths.ep.name} without it is no artifact: its export did not finish, or it was copied alone"
        rest = orphan if paths.ep.exists() else f"neither does {paths.ep.name}"
        raise ArtifactError(paths.manifest, [f"does not exist{too_long(paths.manifest) or f'; {rest}'}"]) from error
    except OSError as error:
        raise ArtifactError(paths.manifest, [f"cannot be read: {reason_of(error, paths.manifest)}"]) from error


def _location_issues(manifest: Manifest, members: dict[str, zipfile.ZipInfo]) -> Iterator[str]:
    """Each payload lies inside an uncompressed member, and no two overlap."""
    end_of_last: dict[str, tuple[int, str]] = {}
    for engine in sorted(manifest.engines, key=lambda engine: engine.location.offset):
        place = engine.location
        info = members.get(place.member)
        if info is None:
            yield f"engine {engine.name}: the archive has no member {place.member!r}"
        elif info.compress_type != zipfile.ZIP_STORED:
            yield f"engine {engine.name}: member {place.member!r} is compressed, so that offsets mean nothing"
        elif place.offset + place.length > info.file_size:
            end = place.offset + place.length
            yield f"engine {engine.name}: should end at byte {end} of {place.member!r}, which has {info.file_size}"
        last, name = end_of_last.get(place.member, (0, ""))
        if place.offset < last:
            yield f"engine {engine.name}: overlaps engine {name} in {place.member!r}"
        end_of_last[place.member] = (max(last, place.offset + place.length), engine.name)
