"""What ``export`` shows while it works, and what it says of many checkpoints."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.cli.console import print_json
from lightning_trt_windows.errors import LightningTrtError

if TYPE_CHECKING:
    from lightning_trt_windows.builds.batch import Exports
    from lightning_trt_windows.builds.options import BuildOptions
    from lightning_trt_windows.export.checkpoint_source import CheckpointSource
    from lightning_trt_windows.progress.display import Display, Progress

__all__ = ["display", "export_several"]


def display(*, quiet: bool, several: bool = False) -> Display:
    """Stages with time on standard error, where that is a terminal; else, of ``several``, a line now and then."""
    from lightning_trt_windows.progress.display import Lines, RichDisplay, Silent

    if quiet:
        return Silent()
    if not sys.stderr.isatty():
        return Lines() if several else Silent()
    try:
        from rich.console import Console
    except ImportError:  # it comes with the extras
        return Silent()
    return RichDisplay(Console(stderr=True))


def export_several(
    arguments: argparse.Namespace, source: CheckpointSource, options: BuildOptions, progress: Progress
) -> int:
    """Export, print what came of it, and give back the exit code."""
    from lightning_trt_windows.builds.batch import export_all

    with progress.shown():
        exports = export_all(source, arguments.checkpoint, options, output=arguments.output, report=progress.update)
    if arguments.json:
        print_json(_values(exports))
    else:
        print(_text(exports))
    for failure in exports.failures:
        print(f"error: {failure.checkpoint}: {type(failure.error).__name__}: {failure.error}", file=sys.stderr)
    return _exit_code(exports.failures[0].error) if exports.failures else 0


def _exit_code(error: Exception) -> int:
    return error.exit_code if isinstance(error, LightningTrtError) else 1


def _text(exports: Exports) -> str:
    from lightning_trt_windows.progress.display import HEADER, summary_row, table

    rows = [
        (str(made.checkpoint), *summary_row(made.artifact)[1:-1], "there" if made.existed else _seconds(made.artifact))
        for made in exports.made
    ]
    size = readable_size(sum(made.artifact.size for made in exports.made))
    existed = sum(made.existed for made in exports.made)
    counts = f"{len(rows) - existed} made, {existed} there already, {len(exports.failures)} failed; {size}"
    return "\n\n".join([*([table(HEADER, rows)] if rows else []), counts])


def _seconds(artifact: Any) -> str:
    from lightning_trt_windows.progress.display import summary_row

    return summary_row(artifact)[-1]


def _values(exports: Exports) -> dict[str, Any]:
    artifacts = [
        {
            "checkpoint": str(made.checkpoint),
            "artifact": made.artifact.url or str(made.artifact.path),
            "existed": made.existed,
            "size": made.artifact.size,
            "sha256": made.artifact.manifest.ep.sha256,
            "engines": len(made.artifact.manifest.engines),
            "fallback_ops": list(made.artifact.manifest.fallback_ops),
            "timings": vars(made.artifact.manifest.timings),
        }
        for made in exports.made
    ]
    failures = [
        {
            "checkpoint": str(failure.checkpoint),
            "error": type(failure.error).__name__,
            "message": str(failure.error),
            "exit_code": _exit_code(failure.error),
        }
        for failure in exports.failures
    ]
    return {"artifacts": artifacts, "failures": failures}
