"""The commands ``collect`` and ``report``: from a run's directory to what goes to the Windows machine."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from lightning_trt_windows.bundle.collecting import collect
from lightning_trt_windows.bundle.gathering import Which
from lightning_trt_windows.bundle.huggingface import collect_for_hub
from lightning_trt_windows.bundle.report import report
from lightning_trt_windows.cli.console import print_json

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to ``commands``."""
    parser = commands.add_parser(
        "collect",
        parents=[common],
        help="gather a run's artifacts into one bundle for Windows",
        description="Gather the artifacts in and below RUN_DIR into one zip for the Windows machine, with what to "
        "install, a script that runs them and a report; or into a folder as the Hugging Face Hub has models.",
    )
    add = parser.add_argument
    add("run_dir", nargs="+", metavar="RUN_DIR", help="directory with artifacts in or below it")
    add("--out", required=True, metavar="OUT", help="the zip, or with --layout huggingface the folder")
    add("--which", choices=get_args(Which), default="all", help="of each directory that holds artifacts (default: all)")
    add("--layout", choices=("bundle", "huggingface"), default="bundle", help="default: %(default)s")
    add("--engines", action="store_true", help="add the raw engines for C++ and C#, with a table of their bindings")
    add(
        "--wheel",
        metavar="FILE",
        help="take this wheel of lightning-trt-windows (default: made of what is installed)",
    )
    add("--skip-damaged", action="store_true", help="leave damaged artifacts out")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_collect)
    parser = commands.add_parser(
        "report",
        parents=[common],
        help="write a page about artifacts, for a browser",
        description="Write a page about the artifacts in and below each PATH that loads nothing from elsewhere.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="directory with artifacts in or below it, or an .ep; a path or a URL"
    )
    parser.add_argument("--out", default="report.html", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--which", choices=get_args(Which), default="all", help="default: %(default)s")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged artifacts out")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_report)


def _collect(arguments: argparse.Namespace) -> int:
    gather: Any = collect_for_hub if arguments.layout == "huggingface" else collect
    result = gather(
        arguments.run_dir,
        arguments.out,
        which=arguments.which,
        engines=arguments.engines,
        skip_damaged=arguments.skip_damaged,
        wheel=arguments.wheel,
    )
    if arguments.json:
        print_json(result.to_dict())
    else:
        print(f"wrote {result}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    path = report(arguments.paths, arguments.out, which=arguments.which, skip_damaged=arguments.skip_damaged)
    if arguments.json:
        print_json({"file": path.name, "size": path.stat().st_size})
    else:
        print(f"wrote {path}")
    return 0
