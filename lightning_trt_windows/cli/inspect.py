"""The command ``inspect``: what an artifact is, or a bundle, or all artifacts of a directory."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.description import Description, Section
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.inspection import inspect
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.shapes import range_text
from lightning_trt_windows.bundle.gathering import gather
from lightning_trt_windows.bundle.reading import inspect_bundle
from lightning_trt_windows.cli.carried import checkpoint_described
from lightning_trt_windows.cli.console import print_json, show
from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.storage.remote_artifact import local_copy

__all__ = ["add"]

_HEADS = ("Artifact", "Kept as", "Step", "Size", "Engines", "In TensorRT", "Ranges")
_NUMBERS = (2, 3, 4, 5)


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "inspect",
        parents=[common],
        help="say what an artifact is and whether it is whole",
        description="Describe an artifact and say whether it is whole; list the artifacts in a directory or a bundle; "
        "or show the shapes that a checkpoint carries. Needs neither PyTorch nor a GPU, and runs nothing.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="the .windows.ep or the .windows.json, a bundle (.zip), a directory, or a .ckpt; a path, or a URL, of "
        "which a copy is made",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="read all of it and compare it with its hashes")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    path = local_copy(arguments.file)
    if path.is_dir():
        said, description, issues = _directory(path, arguments.check, str(arguments.file))
    elif path.suffix.lower() == ".ckpt":
        (said, description), issues = checkpoint_described(path), []
    elif path.suffix.lower() == ".zip":
        said, description, issues = _bundle(path, arguments.check)
    else:
        inspection = inspect(path, check=arguments.check)
        said, description, issues = inspection.to_dict(), inspection.description(), list(inspection.issues)
    if arguments.json:
        print_json(said)
    else:
        show(description)
    return ArtifactError.exit_code if issues else 0


def _directory(path: Path, check: bool, title: str) -> tuple[dict[str, Any], Description, list[str]]:
    found = gather([path], content=check, skip_damaged=True, needs_some=False)
    named = [(str(item.folder / item.artifact.path.name), item.roles, item.manifest) for item in found.artifacts]
    said = {
        "directory": path.name,
        "checked": check,
        "issues": list(found.damaged),
        "unfinished": list(found.unfinished),
        "artifacts": [{"file": name, "roles": list(r), "manifest": m.to_dict()} for name, r, m in named],
    }
    more = [Section("Not finished", tuple((line,) for line in found.unfinished))] if found.unfinished else []
    description = _overview(title, named, found.damaged, check, more)
    return said, description, list(found.damaged)


def _bundle(path: Path, check: bool) -> tuple[dict[str, Any], Description, list[str]]:
    found = inspect_bundle(path, check=check)
    named = [(item.ep, item.roles, item.manifest) for item in found.artifacts]
    others = tuple(
        (name, readable_size(size)) for name, size in found.files.items() if not name.startswith("artifacts/")
    )
    more = [Section("Other files", others, numbers=(1,))]
    return found.to_dict(), _overview(path.name, named, found.issues, check, more), list(found.issues)


def _overview(
    title: str,
    named: Iterable[tuple[str, tuple[str, ...], Manifest]],
    issues: Iterable[str],
    check: bool,
    more: list[Section],
) -> Description:
    rows = tuple(_row(*item) for item in named)
    wrong = tuple((issue,) for issue in issues)
    glance = "none" if check else "none at a glance; --check compares every byte"
    sections = [Section("Artifacts", rows, _HEADS, _NUMBERS)] if rows else []
    return Description(title, (*sections, *more, Section("Issues", wrong or ((glance,),), bad=bool(wrong))))


def _row(name: str, roles: tuple[str, ...], manifest: Manifest) -> tuple[str, ...]:
    step = manifest.checkpoint.global_step if manifest.checkpoint else None
    counts = manifest.operators
    share = f"{counts.tensorrt} of {counts.tensorrt + counts.pytorch}" if counts else ""
    return (
        name,
        ", ".join(roles),
        "" if step is None else str(step),
        readable_size(manifest.ep.size),
        str(len(manifest.engines)),
        share,
        ", ".join(dict.fromkeys(_ranges(manifest))),
    )


def _ranges(manifest: Manifest) -> Iterator[str]:
    for record in manifest.inputs:
        for symbol, low, high in zip(record.symbols, record.min, record.max):
            if symbol is not None:
                yield f"{symbol} {range_text(low, high)}"
