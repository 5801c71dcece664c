"""The command ``index``: make ``artifacts.json`` again from the manifests."""

from __future__ import annotations

import argparse
from typing import Any

from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.cli.console import print_json
from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.storage.run_index import (
    INDEX_NAME,
    Directory,
    IndexEntry,
    RunIndex,
    directories_with_artifacts,
)

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "index",
        parents=[common],
        help=f"write {INDEX_NAME} of a run from its manifests",
        description=f"Write {INDEX_NAME} into each directory at and below RUN_DIR that has artifacts, from their "
        "manifests. WindowsExport does so during a training; this is for artifacts that came or went otherwise.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="directory with artifacts at or below it, or its URL")
    parser.add_argument("--json", action="store_true", help="print JSON: each directory with its index")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.set_defaults(run=_index)


def _index(arguments: argparse.Namespace) -> int:
    indices: dict[str, RunIndex] = {}
    for directory in directories_with_artifacts(arguments.run_dir):
        index = RunIndex.of_manifests(directory)
        if not index.entries and not _has_index(directory):
            continue
        if not arguments.dry_run:
            index.write(directory)
        indices[str(directory)] = index
    if not any(index.entries for index in indices.values()):
        raise ArtifactError(arguments.run_dir, ["there is no artifact in it or below it"])
    if arguments.json:
        print_json({name: index.to_dict() for name, index in indices.items()})
    else:
        print("\n".join(_lines(indices)))
    return 0


def _has_index(directory: Directory) -> bool:
    try:
        RunIndex.read(directory)
    except ArtifactError:
        return False
    return True


def _lines(indices: dict[str, RunIndex]) -> list[str]:
    lines = []
    for name, index in indices.items():
        lines.append(f"{name}: {len(index.entries)} artifact{'' if len(index.entries) == 1 else 's'}")
        lines += [f"  {_described(entry)}" for entry in index.entries]
    return lines


def _described(entry: IndexEntry) -> str:
    step = "" if entry.global_step is None else f"  step {entry.global_step}"
    score = "" if entry.score is None else f"  {entry.monitor} {entry.score:g}"
    flags = "".join(f"  {flag}" for flag in ("best", "last") if getattr(entry, flag))
    return f"{entry.file}  {readable_size(entry.size)}{step}{score}{flags}"
