"""What an artifact is, for people and scripts, on any machine. Standard library only; nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from lightning_trt_windows.artifact import Artifact, archive_members, artifact_issues, read_artifact, readable_size
from lightning_trt_windows.engine_header import HEADER_SIZE, EngineHeader, read_header
from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.manifest import EngineRecord, InputRecord, Manifest

__all__ = ["Inspection", "inspect"]

_BACKENDS = {"tensorrt_rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}
_GEFORCE = {"7.5": "RTX 20", "8.6": "RTX 30", "8.9": "RTX 40", "12.0": "RTX 50"}
_LOADERS = ("torch", "torch-tensorrt-rtx", "torch-tensorrt")
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
        # texts in a manifest come from elsewhere: none of them may move the cursor of a terminal
        return "\n".join(_printable(line) for line in _report(self))


def inspect(path: str | os.PathLike[str], *, check: bool = False) -> Inspection:
    """Describe an artifact, named by its ``.ep`` or its ``.json``.

    Args:
        path: Either of the two files.
        check: Also read the whole ``.ep`` and compare it and each engine with the hashes in the manifest.

    Raises:
        ArtifactError: There is no manifest that could be read. Everything else is in :attr:`Inspection.issues`.
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


def _report(inspection: Inspection) -> Iterator[str]:
    manifest = inspection.manifest
    yield inspection.artifact.path.name
    yield from _columns(_summary(inspection))
    yield from _section("Inputs", [(i.name, i.dtype, _shape(i), _origin(i)) for i in manifest.inputs])
    yield from _section("Ranges", list(_ranges(manifest.inputs)), numbers=(1, 2, 3))
    yield from _section("Outputs", [(o.name, o.dtype, _bracketed(o.shape)) for o in manifest.outputs])
    yield from _section("Engines", list(_engines(inspection)), numbers=(1,))
    yield from _section("Left to PyTorch", [(op,) for op in manifest.fallback_ops] or [("nothing",)])
    yield from _section("Built with", sorted(manifest.versions.items()))
    yield from _section("Verification", list(_pairs(manifest.verification or {})))
    yield from _section("Extra", list(_pairs(manifest.extra)))
    yield from _section("Notes", [(note,) for note in manifest.notes])
    found = "" if inspection.checked else " at a glance; --check compares every byte"
    yield from _section("Issues", [(issue,) for issue in inspection.issues] or [(f"none{found}",)])


def _summary(inspection: Inspection) -> Iterator[tuple[str, ...]]:
    manifest = inspection.manifest
    checkpoint, timings = manifest.checkpoint, manifest.timings
    yield "kind", f"{_BACKENDS.get(manifest.backend.name, manifest.backend.name)} engines for Windows"
    if checkpoint:
        counts = [
            f"{word} {n}"
            for word, n in (("epoch", checkpoint.epoch), ("step", checkpoint.global_step))
            if n is not None
        ]
        yield "checkpoint", checkpoint.file + (f" ({', '.join(counts)})" if counts else "")
    engines = sum(engine.size for engine in manifest.engines)
    yield "size", f"{readable_size(manifest.ep.size)}, {readable_size(engines)} of it engines before base64"
    yield "GPUs", _gpus(inspection)
    yield "needs", _needs(inspection)
    yield (
        "export took",
        f"{timings.capture:.1f} s capture, {timings.compile:.1f} s compile, {timings.write:.1f} s write",
    )
    yield "format", manifest.format_version


def _gpus(inspection: Inspection) -> str:
    """Compute capabilities that all engines run on: from their headers, else from the manifest."""
    said = [header.compute_capabilities for header in inspection.headers.values()]
    common = [c for c in said[0] if all(c in each for each in said)] if said else []
    names = common or inspection.manifest.backend.compute_capabilities
    if not names:
        return "not recorded"
    return "compute capability " + ", ".join(
        f"{name} ({_GEFORCE[name]})" if name in _GEFORCE else name for name in names
    )


def _needs(inspection: Inspection) -> str:
    """The versions a loader must have: the format of a saved program and of an engine are tied to them."""
    versions = inspection.manifest.versions
    minors = [f"{name} {'.'.join(versions[name].split('.')[:2])}" for name in _LOADERS if name in versions]
    runtimes = {".".join(map(str, header.version[:3])) for header in inspection.headers.values()}
    return ", ".join([*minors, *(f"TensorRT-RTX {version}" for version in sorted(runtimes))]) or "not recorded"


def _origin(record: InputRecord) -> str:
    return f"{record.source.kind}: {record.source.reason}" if record.source.reason else record.source.kind


def _shape(record: InputRecord) -> str:
    return _bracketed(symbol or size for symbol, size in zip(record.symbols, record.opt))


def _bracketed(shape: Iterable[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _ranges(inputs: Sequence[InputRecord]) -> Iterator[tuple[str, ...]]:
    """A row for each dynamic dimension, with all the axes that have it."""
    where: dict[str, list[str]] = {}
    bounds: dict[str, tuple[int, int, int]] = {}
    for record in inputs:
        for axis, symbol in enumerate(record.symbols):
            if symbol is not None:
                where.setdefault(symbol, []).append(f"{record.name} axis {axis}")
                bounds[symbol] = record.min[axis], record.opt[axis], record.max[axis]
    if where:
        yield "", "min", "opt", "max", ""
    for symbol, axes in where.items():
        low, opt, high = bounds[symbol]
        yield symbol, str(low), str(opt), str(high), ", ".join(axes)


def _engines(inspection: Inspection) -> Iterator[tuple[str, ...]]:
    for engine in inspection.manifest.engines:
        header = inspection.headers.get(engine.name)
        version = f"TensorRT-RTX {'.'.join(map(str, header.version))}" if header else ""
        bindings = f"{', '.join(engine.inputs)} -> {', '.join(engine.outputs)}"
        yield engine.name, readable_size(engine.size), bindings, version


def _pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _section(title: str, rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...] = ()) -> Iterator[str]:
    if rows:
        yield ""
        yield title
        yield from _columns(rows, numbers)


def _columns(rows: Iterable[tuple[str, ...]], numbers: tuple[int, ...] = ()) -> Iterator[str]:
    """Rows of cells as indented lines with aligned columns; those in ``numbers`` to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.rjust(w) if i in numbers else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        yield "  " + "  ".join(cells).rstrip()


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
