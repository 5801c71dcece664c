"""What an artifact is, for people and scripts, on any machine. Standard library only; nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from lightning_trt_windows.artifact.artifact import Artifact, archive_members, artifact_issues, read_artifact
from lightning_trt_windows.artifact.engine_header import HEADER_SIZE, EngineHeader, read_header
from lightning_trt_windows.artifact.manifest import EngineRecord, Manifest
from lightning_trt_windows.errors import ArtifactError

__all__ = ["Inspection", "inspect"]

_CALL = b'"target": "torch.ops.tensorrt.no_op_placeholder_for_execute_engine.default"'
"""How the graph in the archive calls an engine."""
_CHUNK = 1 << 20
"""Bytes of base64 read at a time: a multiple of 4, so that each piece decodes alone."""


@dataclass(frozen=True)
class Inspection:
    """What is known about an artifact, and what is wrong with it. ``str()`` is the report."""

    artifact: Artifact
    members: Mapping[str, int]
    """Size in bytes of each file inside the ``.ep``; empty where it cannot be opened."""
    headers: Mapping[str, EngineHeader]
    """What each engine says about itself, by name of the engine, as far as the format of its header is known."""
    checked: bool
    """Whether content was compared with the hashes in the manifest."""
    issues: tuple[str, ...]
    """All that was found to be wrong."""

    @property
    def manifest(self) -> Manifest:
        """What the export wrote down."""
        return self.artifact.manifest

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values; the manifest as it is in its file."""
        return {
            "file": self.artifact.path.name,
            "checked": self.checked,
            "issues": list(self.issues),
            "members": dict(self.members),
            "engine_headers": {
                name: {
                    "version": ".".join(map(str, header.version)),
                    "compute_capabilities": list(header.compute_capabilities),
                    "size": header.size,
                    "cuda": header.cuda,
                }
                for name, header in self.headers.items()
            },
            "manifest": self.manifest.to_dict(),
        }

    def __str__(self) -> str:
        from lightning_trt_windows.artifact.description import as_text, described

        return as_text(described(self))


def inspect(path: str | os.PathLike[str], *, check: bool = False) -> Inspection:
    """Describe an artifact, named by its ``.ep`` or its ``.json``.

    Args:
        path: Either of the two files.
        check: Also read the whole ``.ep`` and compare it and each engine with the hashes in the manifest.

    Raises:
        ArtifactError: There is no manifest that could be read. Everything else is in ``Inspection.issues``.
    """
    artifact = read_artifact(path)
    issues = list(artifact_issues(artifact, content=check))
    members: dict[str, zipfile.ZipInfo] = {}
    headers: dict[str, EngineHeader] = {}
    try:
        members = archive_members(artifact.path)
        if not issues:
            with artifact.path.open("rb") as stream:
                issues += _engine_issues(artifact.manifest, stream, members, headers)
                if check:
                    issues += _content_issues(artifact.manifest, stream, members)
    except (OSError, ArtifactError):
        # the same failure is among the issues already; a file that vanishes in between is not
        issues = issues or ["the .ep changed while it was being read"]
    sizes = {name: info.file_size for name, info in members.items()}
    return Inspection(artifact, sizes, headers, check, tuple(issues))


def _engine_issues(
    manifest: Manifest, stream: BinaryIO, members: Mapping[str, zipfile.ZipInfo], headers: dict[str, EngineHeader]
) -> Iterator[str]:
    """Read the header of each engine into ``headers``, and compare it with the manifest."""
    for engine in manifest.engines:
        stream.seek(_start(stream, members, engine))
        text = stream.read(min(engine.location.length, (HEADER_SIZE + 2) // 3 * 4))
        try:
            header = read_header(base64.b64decode(text, validate=True))
        except binascii.Error:
            yield f"engine {engine.name}: there is no base64 text where the manifest says"
            continue
        if header:
            headers[engine.name] = header
            if header.size != engine.size:
                yield f"engine {engine.name}: its header says {header.size} bytes, the manifest {engine.size}"
        elif manifest.backend.name == "tensorrt_rtx":
            yield f"engine {engine.name}: does not begin as TensorRT-RTX engines do"


def _content_issues(manifest: Manifest, stream: BinaryIO, members: Mapping[str, zipfile.ZipInfo]) -> Iterator[str]:
    """Compare each engine with its hash, and the number of engines with the calls in the graph."""
    for engine in manifest.engines:
        if _engine_sha256(stream, _start(stream, members, engine), engine.location.length) != engine.sha256:
            yield f"engine {engine.name}: its bytes are not those whose SHA-256 the manifest has"
    calls = sum(_calls(manifest, stream, info) for name, info in members.items() if name.endswith(".json"))
    if calls != len(manifest.engines):
        yield f"engines in the manifest: {len(manifest.engines)}, calls of engines in the archive: {calls}"


def _start(stream: BinaryIO, members: Mapping[str, zipfile.ZipInfo], engine: EngineRecord) -> int:
    return _data_start(stream, members[engine.location.member]) + engine.location.offset


def _data_start(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the data of a member begins in the file. ``ZipFile.open`` would read all that comes before an offset."""
    stream.seek(info.header_offset + 26)
    lengths = stream.read(4)
    return info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


def _engine_sha256(stream: BinaryIO, start: int, length: int) -> str | None:
    digest = hashlib.sha256()
    stream.seek(start)
    for text in _pieces(stream, length):
        try:
            digest.update(base64.b64decode(text, validate=True))
        except binascii.Error:
            return None
    return digest.hexdigest()


def _calls(manifest: Manifest, stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """How often the JSON between the payloads of a member calls an engine."""
    begin = _data_start(stream, info)
    position, count = 0, 0
    payloads = sorted(
        (e.location.offset, e.location.length) for e in manifest.engines if e.location.member == info.filename
    )
    for offset, length in [*payloads, (info.file_size, 0)]:
        stream.seek(begin + position)
        tail = b""
        for piece in _pieces(stream, offset - position):
            count += (tail + piece).count(_CALL)
            tail = (tail + piece)[-len(_CALL) + 1 :]
        position = offset + length
    return count


def _pieces(stream: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0 and (piece := stream.read(min(length, _CHUNK))):
        length -= len(piece)
        yield piece
