"""What ``inspect`` says of a checkpoint: where it stands in training, and the shapes that it carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.description import Description, Section
from lightning_trt_windows.artifact.shapes import range_text, shape_text
from lightning_trt_windows.checkpoints.metadata import SHAPES, read_metadata
from lightning_trt_windows.errors import CheckpointError

__all__ = ["checkpoint_described"]

_NONE = (
    "none: WindowsExport took no part in the training, or the file was saved with weights only; an export of it needs "
    "--input or --datamodule"
)


def checkpoint_described(path: Path) -> tuple[dict[str, Any], Description]:
    """Describe a checkpoint without reading its weights.

    Args:
        path: A ``.ckpt`` file.

    Returns:
        Values for JSON, and the text for people.

    Raises:
        CheckpointError: The file is missing, damaged or no checkpoint.
    """
    found = read_metadata(path)
    state = found.callbacks.get(SHAPES)
    state = state if isinstance(state, dict) else {}
    try:
        ranges = [dict(entry) for entry in state.get("ranges") or ()]
        notes = [str(note) for note in state.get("notes") or ()]
        rows = tuple(row for entry in ranges for row in _rows(entry))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} has damaged shapes: {type(error).__name__}: {error}") from error
    method = str(state.get("method", ""))
    where = (("epoch", str(found.epoch)), ("step", str(found.global_step)))
    seen = (("calls of", method), ("inputs", str(len(ranges)))) if state else (("shapes", _NONE),)
    sections = [Section("Checkpoint", (*where, *seen))]
    if rows:
        sections.append(Section("Inputs", rows, ("Input", "Type", "Ranges", "Because")))
    if notes:
        sections.append(Section("Notes", tuple((note,) for note in notes)))
    values = {
        "checkpoint": path.name,
        "epoch": found.epoch,
        "global_step": found.global_step,
        "shapes": {"method": method, "ranges": ranges, "notes": notes} if state else None,
    }
    return values, Description(path.name, tuple(sections))


def _rows(entry: Mapping[str, Any]) -> list[tuple[str, ...]]:
    sizes = shape_text(map(range_text, entry["min"], entry["max"]))
    rows = [(str(entry["name"]), str(entry["dtype"]), sizes, str(entry["reason"]))]
    return [*rows, *(("", "", "", str(reason)) for reason in entry.get("dims") or ())]
