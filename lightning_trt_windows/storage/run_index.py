"""``artifacts.json``: which artifacts a checkpoint directory has, which of them is the best, and which the last.

An index repeats what the manifests beside it say, so that a script need not open them all, and it can be made again
from them. At import the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from lightning_trt_windows.artifact import _schema as schema
from lightning_trt_windows.artifact._schema import FileName, FormatVersion, Name, Sha256, finite, flag, one_of
from lightning_trt_windows.artifact.artifact import Artifact, parse_manifest
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.windows_names import illegal_on_windows
from lightning_trt_windows.errors import ArtifactError, OutputError, UnsupportedFormatError
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of

__all__ = [
    "INDEX_NAME",
    "INDEX_VERSION",
    "Directory",
    "IndexEntry",
    "Order",
    "RunIndex",
    "Standing",
    "best_of",
    "directories_with_artifacts",
    "last_of",
    "order_of",
]

INDEX_NAME = "artifacts.json"

INDEX_VERSION = "1.0"
"""MAJOR.MINOR. A new minor only adds keys."""

Directory = Path | RemoteFile
"""A directory of this machine or elsewhere."""


@dataclass(frozen=True)
class Standing:
    """What a Trainer says about a checkpoint that its manifest does not."""

    monitor: str | None = None
    mode: str | None = None
    score: float | None = None
    best: bool = False
    """The one that ModelCheckpoint calls the best; the newest, where it monitors nothing."""
    last: bool = False


@dataclass(frozen=True)
class IndexEntry:
    """One artifact. File names are without directory."""

    file: FileName
    """The ``.ep``."""
    size: int
    """Size of the ``.ep`` in bytes."""
    manifest: FileName
    manifest_sha256: Sha256
    checkpoint: Name | None = None
    """Name of the checkpoint as in the manifest; ``None`` where a module was exported that came from none."""
    epoch: int | None = None
    global_step: int | None = None
    monitor: Name | None = None
    """Name of the metric that the checkpoint was kept for."""
    mode: Annotated[str, one_of(("min", "max"))] | None = None
    """``min`` or ``max``: which end of it is the better one."""
    score: Annotated[float, finite] | None = None
    best: Annotated[bool, flag] = False
    """Whether it is the best of those here with its monitor; without a monitor, what the Trainer calls the best."""
    last: Annotated[bool, flag] = False
    """The one with the most steps; one of an index, unless it is empty."""

    @classmethod
    def of(cls, manifest: Manifest, name: str, data: bytes, standing: Standing | None = None) -> IndexEntry:
        """What stands in a manifest, the file ``name`` of content ``data``."""
        entry = cls(manifest.ep.file, manifest.ep.size, name, hashlib.sha256(data).hexdigest())
        if record := manifest.checkpoint:
            entry = replace(entry, checkpoint=record.file, epoch=record.epoch, global_step=record.global_step)
            if record.scores:
                first = record.scores[0]
                entry = replace(entry, monitor=first.monitor, mode=first.mode, score=first.value)
        return entry.judged(standing) if standing else entry

    @property
    def order(self) -> Order:
        """Its place in the order of training."""
        step, epoch, called_last = order_of(self.file, self.global_step, self.epoch)
        return step, epoch, called_last or self.last

    def judged(self, standing: Standing) -> IndexEntry:
        """The entry with what the Trainer says now."""
        score = standing.score if standing.score is not None and math.isfinite(standing.score) else None
        if score is None:
            return replace(self, best=standing.best, last=standing.last)
        return replace(self, **{**asdict(standing), "score": score})


@dataclass(frozen=True)
class _Document:
    """The file, as the schema reads it."""

    format_version: FormatVersion
    artifacts: tuple[IndexEntry, ...]


@dataclass(frozen=True)
class RunIndex:
    """The artifacts of one directory, by step and name."""

    entries: tuple[IndexEntry, ...] = ()
    format_version: str = field(default=INDEX_VERSION)

    @classmethod
    def read(cls, directory: str | os.PathLike[str] | RemoteFile) -> RunIndex:
        """The index that stands in ``directory``.

        Returns:
            The index.

        Raises:
            ArtifactError: There is no index, or it is damaged.
            UnsupportedFormatError: A newer version of this package wrote it.
        """
        place = place_of(directory)
        where = _child(place, INDEX_NAME)
        data = _content(where)
        if data is None:
            raise ArtifactError(where, ["does not exist; lightning-trt-windows index makes it"])
        return cls.from_json(data, str(where))

    @classmethod
    def from_json(cls, data: bytes, where: str) -> RunIndex:
        """The index that a file's content is; ``where`` names the file in messages.

        Returns:
            The index.

        Raises:
            ArtifactError: The data is not a valid index; the error lists every fault.
            UnsupportedFormatError: A newer version of this package wrote it.
        """
        place = schema.Place()
        try:
            document = schema.parse_json(data.decode("utf-8-sig"), place)
        except UnicodeDecodeError as error:
            raise ArtifactError(where, [f"is not an index of artifacts: not UTF-8 text: {error}"]) from error
        version = document.get("format_version") if isinstance(document, dict) else None
        found = re.fullmatch("([0-9]{1,6})[.]([0-9]{1,6})", version) if isinstance(version, str) else None
        major, minor = (int(part) for part in INDEX_VERSION.split("."))
        if found and int(found[1]) != major:
            raise UnsupportedFormatError(where, [f"its format version is {version}; upgrade lightning-trt-windows"])
        lenient = found is not None and int(found[2]) > minor  # of a newer version, which may have added keys
        if not place.issues:
            document = schema.reader_of(_Document)(document, schema.Place("", place.issues, lenient))
        if place.issues:
            raise ArtifactError(where, [f"is not an index of artifacts: {issue}" for issue in place.issues])
        return cls(document.artifacts)

    @classmethod
    def of_manifests(
        cls, directory: str | os.PathLike[str] | RemoteFile, standings: Mapping[str, Standing] | None = None
    ) -> RunIndex:
        """What the manifests in ``directory`` say; an ``.ep`` that is missing or has another size is none.

        Args:
            directory: A checkpoint directory, or its URL.
            standings: What the Trainer says, by the checkpoints' names as manifests have them.

        Returns:
            The index that those manifests make.
        """
        place = place_of(directory)
        entries = []
        for manifest in _children(place, ".json"):
            if manifest.name == INDEX_NAME or illegal_on_windows(manifest.name):
                continue
            data = _content(manifest)
            try:
                found = parse_manifest(data or b"", manifest)
            except ArtifactError:
                continue
            if _size(_child(place, found.ep.file)) == found.ep.size:
                name = found.checkpoint.file if found.checkpoint else ""
                entries.append(IndexEntry.of(found, manifest.name, data or b"", (standings or {}).get(name)))
        return cls(tuple(entries))._settled()

    def with_artifact(self, artifact: Artifact, data: bytes) -> RunIndex:
        """The index with ``artifact``, whose manifest is ``data``, in place of what had its name."""
        entry = IndexEntry.of(artifact.manifest, artifact.paths.manifest.name, data)
        return RunIndex((*(e for e in self.entries if e.file != entry.file), entry))._settled()

    def without(self, file: str) -> RunIndex:
        """Without the artifact whose ``.ep`` is ``file``."""
        return RunIndex(tuple(entry for entry in self.entries if entry.file != file))._settled()

    def judged(self, standings: Mapping[str, Standing]) -> RunIndex:
        """The index with what the Trainer says now, by the checkpoints' names as manifests have them."""
        entries = (entry.judged(standings.get(entry.checkpoint or "", Standing())) for entry in self.entries)
        return RunIndex(tuple(entries))._settled()

    @property
    def best(self) -> IndexEntry | None:
        """The best one; of several monitors, of the first."""
        return next((entry for entry in self.entries if entry.best), None)

    @property
    def last(self) -> IndexEntry | None:
        """The one with the most steps."""
        return next((entry for entry in self.entries if entry.last), None)

    def to_dict(self) -> dict[str, Any]:
        """Dicts, lists and scalars."""
        return {"format_version": INDEX_VERSION, "artifacts": [asdict(entry) for entry in self.entries]}

    def write(self, directory: str | os.PathLike[str] | RemoteFile) -> None:
        """Put it into ``directory``, whole or not at all.

        Raises:
            OutputError: The index cannot be written.
        """
        where = _child(place_of(directory), INDEX_NAME)
        data = (json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
        if isinstance(where, Path):
            with atomic_file(where) as file:
                file.write(data)
            return
        try:
            where.write(data)
        except OSError as error:
            raise OutputError(f"cannot write {where}: {error}; see that the place can be written to") from error

    def _settled(self) -> RunIndex:
        """The index in order, with one last artifact and one best of each monitor."""
        entries = sorted(self.entries, key=lambda e: (e.order[0], e.file))
        latest = last_of((e.order, e) for e in entries) if entries else None
        best = {id(entry) for entry in _best(entries)}
        return RunIndex(tuple(replace(e, best=id(e) in best, last=e is latest) for e in entries))


def _best(entries: Iterable[IndexEntry]) -> Iterator[IndexEntry]:
    scored: dict[tuple[str | None, str | None], list[tuple[float, Order, IndexEntry]]] = {}
    for entry in entries:
        if entry.score is not None:
            scored.setdefault((entry.monitor, entry.mode), []).append((entry.score, entry.order, entry))
        elif entry.best:
            yield entry
    for (_, mode), same in scored.items():
        yield best_of(same, mode or "min")


def directories_with_artifacts(root: str | os.PathLike[str]) -> Sequence[Directory]:
    """The directories at and below ``root`` that have manifests in them.

    Returns:
        The directories, sorted.

    Raises:
        ArtifactError: There is no such directory.
    """
    place = place_of(root)
    if isinstance(place, RemoteFile):
        return [RemoteFile(url) for url in sorted({file.parent for file in place.below(".json")})]
    if not place.is_dir():
        raise ArtifactError(place, ["is not a directory"])
    return sorted({path.parent for path in place.rglob("*.json") if path.name != INDEX_NAME})


def _child(directory: Directory, name: str) -> Directory:
    return directory / name if isinstance(directory, Path) else directory.child(name)


def _children(directory: Directory, suffix: str) -> Iterable[Directory]:
    if isinstance(directory, RemoteFile):
        return directory.children(suffix)
    return sorted(path for path in directory.glob(f"*{suffix}") if path.is_file())


def _content(file: Directory) -> bytes | None:
    try:
        return file.read_bytes() if isinstance(file, Path) else file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(file, [f"cannot be read: {error}"]) from error


def _size(file: Directory) -> int | None:
    if isinstance(file, RemoteFile):
        return file.size()
    return file.stat().st_size if file.is_file() else None


_T = TypeVar("_T")

Order = tuple[int, int, bool]
"""Place in the order of training: optimizer steps, epoch, and whether it is called the last one."""


def order_of(file: str, global_step: int | None, epoch: int | None) -> Order:
    """The place of an artifact ``file``; what is not known comes first."""
    return -1 if global_step is None else global_step, -1 if epoch is None else epoch, "last" in file.lower()


def best_of(scored: Iterable[tuple[float, Order, _T]], mode: str) -> _T:
    """The one with the highest score, or the lowest where ``mode`` is not ``"max"``; there must be one.

    Of equal ones the earliest, as ModelCheckpoint keeps it.
    """
    sign = -1 if mode == "max" else 1
    return min(scored, key=lambda item: (sign * item[0], item[1]))[2]


def last_of(placed: Iterable[tuple[Order, _T]]) -> _T:
    """The one with the most steps, and of equal ones that is called so; there must be one."""
    return max(placed, key=lambda item: item[0])[1]
