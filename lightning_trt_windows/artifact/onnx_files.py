"""The ONNX model of an artifact as files: whether they are those that the manifest lists. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.golden_files import file_issues

__all__ = ["NO_MODEL", "onnx_issues", "why_no_onnx"]

NO_MODEL = "There is no ONNX model beside it: "
"""What the note in the manifest begins with where one was asked for and could not be made."""


def onnx_issues(artifact: Artifact, *, content: bool = True) -> Iterator[str]:
    """What is wrong with the ONNX model that the manifest lists, sentence by sentence; nothing where it lists none.

    Args:
        artifact: What it belongs to.
        content: Whether to hash the files.

    Returns:
        The sentences; none where nothing is wrong.
    """
    records = artifact.manifest.onnx
    paths = artifact.paths.onnx_files(len(artifact.manifest.engines))
    if records and len(records) not in (1, len(paths)):
        yield f"ONNX model: the manifest lists {len(records)} files, and with its engines it has {len(paths)}"
        return
    for record, path in zip(records, paths):
        yield from file_issues("ONNX model", record, path, content=content)


def why_no_onnx(artifact: Artifact) -> str:
    """The manifest's sentence where an ONNX model was asked for and could not be made; empty otherwise."""
    return next((note for note in artifact.manifest.notes if note.startswith(NO_MODEL)), "")
