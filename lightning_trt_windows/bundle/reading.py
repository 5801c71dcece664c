"""A bundle as the one who got it sees it: what is in it, whether it is whole, and unpacking it. Standard library only.

Nothing in a zip is believed: names may not leave the folder, and only files that ``bundle.json`` lists with this size
and this hash are written.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact import _schema as schema
from lightning_trt_windows.artifact._schema import Name, Sha256
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.bundle.collecting import BUNDLE_FORMAT, CONTENTS
from lightning_trt_windows.bundle.layout import safe_issue
from lightning_trt_windows.bundle.zipped import content_of, extract_archive, members_of
from lightning_trt_windows.errors import ArtifactError, UnsupportedFormatError

__all__ = ["BundleInspection", "BundledArtifact", "extract_bundle", "inspect_bundle"]

_LARGEST_TEXT = 1 << 24
"""Bytes of a manifest or a list."""


@dataclass(frozen=True)
class _Entry:
    ep: Name
    manifest: Name
    roles: tuple[Name, ...]


@dataclass(frozen=True)
class _File:
    size: int
    sha256: Sha256


@dataclass(frozen=True)
class _Contents:
    bundle_format: int
    artifacts: tuple[_Entry, ...]
    files: Mapping[str, _File]

    def issues(self) -> Iterator[str]:
        """What does not fit together."""
        for entry in self.artifacts:
            yield from (f"{name} is not listed" for name in (entry.ep, entry.manifest) if name not in self.files)
        yield from (f"{name!a}: {why}" for name in self.files if (why := safe_issue(name)))


@dataclass(frozen=True)
class BundledArtifact:
    """An artifact in a bundle."""

    ep: str
    """Name of its ``.ep`` in the bundle."""
    roles: tuple[str, ...]
    manifest: Manifest


@dataclass(frozen=True)
class BundleInspection:
    """What is known about a bundle, and what is wrong with it."""

    path: Path
    artifacts: tuple[BundledArtifact, ...]
    files: Mapping[str, int]
    """Size in bytes of every file in it."""
    checked: bool
    """Whether content was compared with the hashes."""
    issues: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "file": self.path.name,
            "checked": self.checked,
            "issues": list(self.issues),
            "files": dict(self.files),
            "artifacts": [
                {"ep": item.ep, "roles": list(item.roles), "manifest": item.manifest.to_dict()}
                for item in self.artifacts
            ],
        }


def inspect_bundle(path: str | os.PathLike[str], *, check: bool = False) -> BundleInspection:
    """Describe a bundle without unpacking it.

    Args:
        path: The zip.
        check: Also read all of it and compare each file with its hash.

    Returns:
        What is in it, and what is wrong with it.

    Raises:
        ArtifactError: The file is not a bundle, or names in it would leave the folder. Every other fault is in
            ``issues``.
    """
    path = Path(path)
    infos = members_of(path)
    issues: list[str] = []
    artifacts = []
    with zipfile.ZipFile(path) as archive:
        contents = _contents(path, archive, infos)
        issues += _list_issues(contents, infos)
        for entry in contents.artifacts:
            try:
                text = _text(path, archive, infos, entry.manifest)
                artifacts.append(BundledArtifact(entry.ep, entry.roles, Manifest.from_json(text, entry.manifest)))
            except ArtifactError as error:
                issues += [f"{entry.manifest}: {issue}" for issue in error.issues]
        issues += [issue for item in artifacts for issue in _artifact_issues(item, contents)]
        if check:
            issues += _content_issues(archive, infos, contents)
    sizes = {name: info.file_size for name, info in infos.items()}
    return BundleInspection(path, tuple(artifacts), sizes, check, tuple(issues))


def extract_bundle(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Unpack a bundle into a new folder; gives back its ``.ep`` files, which ``load`` takes.

    Returns:
        The ``.ep`` files in the new folder.

    Raises:
        ArtifactError: A name that would leave the folder, or a file that is not listed or not the one that is.
        OutputError: The folder cannot be written, or holds something.
    """
    path, folder = Path(path), Path(folder)
    infos = members_of(path)
    with zipfile.ZipFile(path) as archive:
        contents = _contents(path, archive, infos)
        if issues := list(_list_issues(contents, infos)):
            raise ArtifactError(path, issues)
        own = _text(path, archive, infos, CONTENTS).encode()
    hashes = {name: (file.size, file.sha256) for name, file in contents.files.items()}
    hashes[CONTENTS] = (len(own), hashlib.sha256(own).hexdigest())
    extract_archive(path, folder, hashes)
    return [folder.joinpath(*entry.ep.split("/")) for entry in contents.artifacts]


def _contents(path: Path, archive: zipfile.ZipFile, infos: Mapping[str, zipfile.ZipInfo]) -> _Contents:
    if CONTENTS not in infos:
        raise ArtifactError(path, [f"has no {CONTENTS}, so it is not a bundle of this package"])
    place = schema.Place()
    data = schema.parse_json(_text(path, archive, infos, CONTENTS), place)
    found = data.get("bundle_format") if isinstance(data, dict) else None
    if isinstance(found, int) and found > BUNDLE_FORMAT:
        raise UnsupportedFormatError(
            path, [f"its format is {found}, this lightning-trt-windows reads {BUNDLE_FORMAT}: upgrade it"]
        )
    contents = schema.reader_of(_Contents)(data, place) if not place.issues else None
    if place.issues or not isinstance(contents, _Contents):
        raise ArtifactError(f"{path}, {CONTENTS}", place.issues)
    return contents


def _text(path: Path, archive: zipfile.ZipFile, infos: Mapping[str, zipfile.ZipInfo], name: str) -> str:
    if name not in infos:
        raise ArtifactError(path, [f"{name} is missing"])
    if infos[name].file_size > _LARGEST_TEXT:
        raise ArtifactError(path, [f"{name} is larger than {_LARGEST_TEXT} bytes"])
    data = b"".join(content_of(archive, infos[name]))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtifactError(path, [f"{name} is not UTF-8 text: {error}"]) from error


def _list_issues(contents: _Contents, infos: Mapping[str, zipfile.ZipInfo]) -> Iterator[str]:
    """Both directions: listed and missing, there and not listed."""
    for name, file in contents.files.items():
        if name not in infos:
            yield f"{name} is missing"
        elif infos[name].file_size != file.size:
            yield f"{name} has {infos[name].file_size} bytes instead of {file.size}"
    yield from (f"{name} is not listed in {CONTENTS}" for name in infos if name not in (*contents.files, CONTENTS))


def _artifact_issues(item: BundledArtifact, contents: _Contents) -> Iterator[str]:
    """The manifest speaks of the file beside it."""
    folder, _, name = item.ep.rpartition("/")
    _, *others = item.manifest.files
    records = [(item.ep, item.manifest.ep), *((f"{folder}/{record.file}", record) for record in others)]
    for place, record in records:
        listed = contents.files.get(place)
        if record is item.manifest.ep and record.file != name:
            yield f"{item.ep}: its manifest describes {record.file}"
        elif listed is None or (listed.size, listed.sha256) != (record.size, record.sha256):
            yield f"{place} is not the file that the manifest beside it describes"


def _content_issues(
    archive: zipfile.ZipFile, infos: Mapping[str, zipfile.ZipInfo], contents: _Contents
) -> Iterator[str]:
    for name, file in contents.files.items():
        if name not in infos:
            continue
        digest = hashlib.sha256()
        try:
            for piece in content_of(archive, infos[name]):
                digest.update(piece)
        except ArtifactError as error:
            yield from error.issues
            continue
        if digest.hexdigest() != file.sha256:
            yield f"{name} is not the file that went into the bundle: its SHA-256 differs"
