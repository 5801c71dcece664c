"""The format ``onnx`` of an export: a model for ONNX Runtime beside the artifact, where its program can be one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.artifact.files import output_errors, sha256_of
from lightning_trt_windows.artifact.manifest import FileRecord, Manifest
from lightning_trt_windows.artifact.onnx_files import NO_MODEL, why_no_onnx
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.modules.state import outside_of_steps, random_state_kept
from lightning_trt_windows.onnx.model import write_onnx

__all__ = ["remove_onnx", "warned_without_onnx", "with_onnx"]


def with_onnx(artifact: Artifact, lines: Mapping[str, str] | None = None) -> Manifest:
    """Write the model of ``artifact``, whose ``.ep`` is there and whose manifest need not be.

    Args:
        artifact: What has been exported.
        lines: The line of the model that a node comes from, by the node's name, for messages.

    Returns:
        The manifest with the files of the model, or with a note that says why there is none: the artifact counts
        without it.

    Raises:
        EnvironmentMismatchError: The package ``onnx`` or, where operators run in PyTorch, ``onnxscript`` is missing.
        OutputError: The files cannot be written.
    """
    try:
        # PyTorch's exporter traces what stays in PyTorch once more
        with random_state_kept(), outside_of_steps():
            model = write_onnx(artifact, lines=lines)
    except ConfigurationError as error:
        return replace(artifact.manifest, notes=(*artifact.manifest.notes, f"{NO_MODEL}{error}"))
    return replace(artifact.manifest, onnx=tuple(map(_record, (model.path, *model.engines))))


def remove_onnx(paths: ArtifactPaths) -> None:
    """Remove the model that an earlier export left, and then its engines: they must not pass for those that come.

    Raises:
        OutputError: They cannot be removed.
    """
    with output_errors(paths.onnx, 0):
        for path in paths.left_onnx_files():
            path.unlink(missing_ok=True)


def _record(path: Path) -> FileRecord:
    return FileRecord(file=path.name, size=path.stat().st_size, sha256=sha256_of(path))


def warned_without_onnx(artifact: Artifact) -> Artifact:
    """``artifact``, after a warning where an ONNX model was asked for and could not be made."""
    if why := why_no_onnx(artifact):
        warnings.warn(f"{artifact.path.name} is complete. {why}", stacklevel=3)
    return artifact
