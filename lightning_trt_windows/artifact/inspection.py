"""What an artifact is, for people and scripts, on any machine. Standard library only; nothing is unpickled."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact, why_not_read
from lightning_trt_windows.artifact.description import Description, as_text, described
from lightning_trt_windows.artifact.engine_header import EngineHeader, read_header
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.notebook import as_html
from lightning_trt_windows.artifact.onnx_files import onnx_issues
from lightning_trt_windows.artifact.outline import ENGINE
from lightning_trt_windows.errors import ArtifactError

__all__ = ["Inspection", "inspect"]

_CALL = f'"target": "{ENGINE}"'.encode()
"""How the graph in the archive calls an engine."""


@dataclass(frozen=True, repr=False)
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
        """Give the same as JSON values.

        Returns:
            Plain values; the manifest as it is in its file.
        """
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

    def description(self) -> Description:
        """Describe the artifact for people.

        Returns:
            Everything that is known about it.
        """
        return described(
            self.manifest, self.artifact.path.name, headers=self.headers, checked=self.checked, issues=self.issues
        )

    def __str__(self) -> str:
        return as_text(self.description())

    def __repr__(self) -> str:
        wrong = f"{len(self.issues)} issue{'' if len(self.issues) == 1 else 's'}" if self.issues else "no issues"
        return f"<Inspection of {self.artifact}: {wrong}; print() shows all of it>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self.description())


def inspect(path: str | os.PathLike[str], *, check: bool = False) -> Inspection:
    """Describe an artifact, named by its ``.ep`` or its ``.json``.

    Args:
        path: Either of the two files.
        check: Also read the whole ``.ep`` and compare it, each engine, and the ONNX model if there is one, with the
            hashes in the manifest.

    Returns:
        What is known about it; what is wrong with its ``.ep`` is in ``Inspection.issues``.

    Raises:
        ArtifactError: The manifest is missing or damaged.
    """
    artifact = read_artifact(path)
    issues: list[str] = []
    sizes: dict[str, int] = {}
    headers: dict[str, EngineHeader] = {}
    try:
        with EpFile(artifact.path) as file:
            issues += file.issues(artifact.manifest, content=check)
            with contextlib.suppress(ArtifactError):  # that is among the issues
                sizes = {name: info.file_size for name, info in file.members.items()}
            if not issues:
                issues += _engine_issues(artifact.manifest, file, headers)
                issues += _content_issues(artifact.manifest, file) if check else ()
    except OSError as error:
        issues.append(why_not_read(error, artifact.path))
    if check:
        issues += onnx_issues(artifact)
    return Inspection(artifact, sizes, headers, check, tuple(issues))


def _engine_issues(manifest: Manifest, file: EpFile, headers: dict[str, EngineHeader]) -> Iterator[str]:
    """Read the header of each engine into ``headers``, and compare it with the manifest."""
    for engine in manifest.engines:
        try:
            header = read_header(file.head(engine))
        except ArtifactError as error:
            yield from error.issues
            continue
        if header:
            headers[engine.name] = header
            if header.size != engine.size:
                yield f"engine {engine.name}: its header says {header.size} bytes, the manifest {engine.size}"
        elif manifest.backend.name == "tensorrt_rtx":
            yield f"engine {engine.name}: does not begin as TensorRT-RTX engines do"


def _content_issues(manifest: Manifest, file: EpFile) -> Iterator[str]:
    """Compare each engine with its hash, and the number of engines with the calls in the graph."""
    try:
        for engine in manifest.engines:
            digest = hashlib.sha256()
            for piece in file.engine_pieces(engine):
                digest.update(piece)
            if digest.hexdigest() != engine.sha256:
                yield f"engine {engine.name}: its bytes are not those whose SHA-256 the manifest has"
        calls = sum(_calls(manifest, file, name) for name in file.members if name.endswith(".json"))
    except ArtifactError as error:
        yield from error.issues
        return
    if calls != len(manifest.engines):
        yield f"engines in the manifest: {len(manifest.engines)}, calls of engines in the archive: {calls}"


def _calls(manifest: Manifest, file: EpFile, member: str) -> int:
    """Count how often the JSON between the payloads of a member calls an engine."""
    count, tail = 0, b""
    for piece in file.without_payloads(member, (("", e) for e in manifest.engines if e.location.member == member)):
        count += (tail + piece).count(_CALL)
        tail = (tail + piece)[-len(_CALL) + 1 :]
    return count
