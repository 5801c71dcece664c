"""An artifact as loggers see it: files, aliases, and values that fit into a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.shapes import range_text, shape_text

__all__ = ["LoggedArtifact", "Value", "markdown"]

Value: TypeAlias = str | int | float


@dataclass(frozen=True)
class LoggedArtifact:
    """What a logger is given."""

    artifact: Artifact
    step: int
    """Optimizer steps that had been taken."""
    best: bool = False
    """Whether it is of ModelCheckpoint's best checkpoint."""
    monitor: str | None = None
    score: float | None = None
    """Score of the checkpoint, where ModelCheckpoint monitors something."""

    @property
    def name(self) -> str:
        """Name of the checkpoint without ``.ckpt``, legal on Windows."""
        return self.artifact.paths.name

    @property
    def aliases(self) -> list[str]:
        """Names that loggers give to checkpoints: ``latest``, ``best``."""
        return ["latest", "best"] if self.best else ["latest"]

    @property
    def files(self) -> list[Path]:
        """The ``.ep``, its manifest and what else belongs to it; of an artifact elsewhere none (``artifact.url``)."""
        paths = self.artifact.paths
        model = paths.onnx_files(len(self.artifact.manifest.engines)) if self.artifact.manifest.onnx else ()
        own = (paths.ep, paths.manifest, paths.golden, *model)
        return [path for path in own if path.is_file()] if self.artifact.url is None else []

    @property
    def values(self) -> dict[str, Value]:
        """What the manifest says that people look for, flat; keys with a dot name one of several."""
        values: dict[str, Value | None] = {"file": self.artifact.path.name, "url": self.artifact.url}
        values |= {"monitor": self.monitor, "score": self.score}
        values |= _of_manifest(self.artifact.manifest)
        return {key: value for key, value in values.items() if value is not None}


def _of_manifest(manifest: Manifest) -> Mapping[str, Value | None]:
    checkpoint, precision = manifest.checkpoint, manifest.backend.options.get("precision")
    values: dict[str, Value | None] = {
        "size": manifest.ep.size,
        "sha256": manifest.ep.sha256,
        "checkpoint": checkpoint.file if checkpoint else None,
        "epoch": checkpoint.epoch if checkpoint else None,
        "global_step": checkpoint.global_step if checkpoint else None,
        "backend": manifest.backend.name,
        "compute_capabilities": " ".join(manifest.backend.compute_capabilities),
        "precision": str(precision) if precision else "as the weights",
        "engines": len(manifest.engines),
        "engines_size": sum(engine.size for engine in manifest.engines),
        "fallback_ops": len(manifest.fallback_ops),
        "fallback_op_names": " ".join(manifest.fallback_ops) or None,
        "compile_seconds": manifest.timings.compile,
        "format_version": manifest.format_version,
    }
    for record in manifest.inputs:
        values[f"inputs.{record.name}"] = record.dtype + shape_text(map(range_text, record.min, record.opt, record.max))
    values |= {f"outputs.{o.name}": o.dtype + shape_text(o.shape) for o in manifest.outputs}
    return values | {f"versions.{name}": version for name, version in manifest.versions.items()}


def markdown(record: LoggedArtifact) -> str:
    """The values as a table."""
    rows = "".join(f"| {key} | {str(value).replace('|', chr(92) + '|')} |\n" for key, value in record.values.items())
    return f"**{record.artifact.url or record.artifact.path.name}**\n\n| | |\n| --- | --- |\n{rows}"
