"""Whether goldens (reference outputs) are those in the manifest; their content is not parsed. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.manifest import FileRecord
from lightning_trt_windows.artifact.open_elsewhere import reason_of
from lightning_trt_windows.artifact.windows_names import too_long

__all__ = ["file_issues", "golden_issues"]


def golden_issues(artifact: Artifact, *, content: bool = True) -> Iterator[str]:
    """What is wrong with the goldens that the manifest lists, sentence by sentence; nothing where it lists none.

    Args:
        artifact: What they belong to.
        content: Whether to hash them.

    Returns:
        The sentences; none where nothing is wrong.
    """
    record, path = artifact.manifest.golden, artifact.paths.golden
    if record is None:
        return
    yield from file_issues("goldens", record, path, content=content)


def file_issues(what: str, record: FileRecord, path: Path, *, content: bool = True) -> Iterator[str]:
    """What is wrong with one file beside the ``.ep``, sentence by sentence.

    Args:
        what: What it is, for the sentences.
        record: What the manifest says of it.
        path: Where it is.
        content: Whether to hash it.

    Returns:
        The sentences; none where nothing is wrong.
    """
    # a file is opened by the name that belongs to the artifact, never by one that stands in a manifest; Windows finds
    # it in whatever case that was typed
    if record.file.casefold() != path.name.casefold():
        yield f"{what}: the manifest describes {record.file}, and of this artifact it is called {path.name}"
        return
    try:
        size = path.stat().st_size
        if size != record.size:
            yield f"{what}: {path.name} has {size} bytes instead of {record.size}"
        elif content and sha256_of(path) != record.sha256:
            yield f"{what}: the content of {path.name} is not that of the export"
    except FileNotFoundError:
        yield f"{what}: {path.name} does not exist{too_long(path) or '; copy it together with the artifact'}"
    except OSError as error:
        yield f"{what}: {path.name} cannot be read: {reason_of(error, path)}"
