"""The format ``onnx`` of an export: a model for ONNX Runtime beside the artifact, where its program can be one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.artifact.files import output_errors, sha256_of
from lightning_trt_windows.artifact.manifest import FileRecord, Manifest
from lightning_trt_windows.artifact.onnx_files import NO_MODEL, why_no_onnx
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.onnx.model import write_onnx

__all__ = ["remove_onnx", "warned_without_onnx", "with_onnx"]


def with_onnx(artifact: Artifact) -> Manifest:
    """Write the model of ``artifact``, whose ``.ep`` is there and whose manifest need not be.

    Returns:
        The manifest with the files of the model, or with a note that says why there is none: the artifact counts
        without it.

    Raises:
        EnvironmentMismatchError: The package ``onnx`` is not installed.
        OutputError: The files cannot be written.
    """
    try:
        model = write_onnx(artifact)
    except ConfigurationError as error:
        return replace(artifact.manifest, notes=(*artifact.manifest.notes, f"{NO_MODEL}{error}"))
    return replace(artifact.manifest, onnx=tuple(map(_record, (model.path, *model.engines))))


def remove_onnx(paths: ArtifactPaths) -> None:
    """Remove the model that an earlier export left: it must not pass for one of the weights that come.

    Raises:
        OutputError: It cannot be removed.
    """
    with output_errors(paths.onnx, 0):
        paths.onnx.unlink(missing_ok=True)


def _record(path: Path) -> FileRecord:
    return FileRecord(file=path.name, size=path.stat().st_size, sha256=sha256_of(path))


def warned_without_onnx(artifact: Artifact) -> Artifact:
    """``artifact``, after a warning where an ONNX model was asked for and could not be made."""
    if why := why_no_onnx(artifact):
        warnings.warn(f"{artifact.path.name} is complete. {why}", stacklevel=3)
    return artifact
