"""The commands ``collect`` and ``report``: from a run's directory to what goes to the Windows machine."""

from __future__ import annotations

import argparse
import sys
from typing import Any, get_args

from lightning_trt_windows.bundle.collecting import collect
from lightning_trt_windows.bundle.gathering import Which
from lightning_trt_windows.bundle.hub_push import hub_target, push_to_hub
from lightning_trt_windows.bundle.huggingface import collect_for_hub
from lightning_trt_windows.bundle.report import report
from lightning_trt_windows.cli.console import print_json
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["add"]

_OF_THE_HUB = ("license", "pipeline_tag", "push", "private", "yes")
"""Options that only the layout of the Hub has."""


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
    hub = parser.add_argument_group("with --layout huggingface")
    hub.add_argument("--license", metavar="NAME", help="licence for the model card, such as apache-2.0")
    hub.add_argument("--pipeline-tag", metavar="NAME", help="task for the model card, such as image-classification")
    hub.add_argument("--push", metavar="USER/MODEL", help="push the folder to this model on the Hub, after a question")
    hub.add_argument("--private", action="store_true", help="make the model private, where the push makes it")
    hub.add_argument("--yes", action="store_true", help="push without the question")
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
    common = {
        "which": arguments.which,
        "engines": arguments.engines,
        "skip_damaged": arguments.skip_damaged,
        "wheel": arguments.wheel,
    }
    if arguments.layout == "huggingface":
        return _for_hub(arguments, common)
    if given := [f"--{name.replace('_', '-')}" for name in _OF_THE_HUB if getattr(arguments, name)]:
        raise ConfigurationError(f"{', '.join(given)} takes --layout huggingface: a bundle is a zip that stays here")
    bundle = collect(arguments.run_dir, arguments.out, **common)
    if arguments.json:
        print_json(bundle.to_dict())
    else:
        print(f"wrote {bundle}")
    return 0


def _for_hub(arguments: argparse.Namespace, common: dict[str, Any]) -> int:
    if (arguments.private or arguments.yes) and not arguments.push:
        raise ConfigurationError("--private and --yes are about a push: add --push USER/MODEL")
    if arguments.push and not arguments.yes and not sys.stdin.isatty():
        raise ConfigurationError(
            "a push is asked about, and nobody can be asked here: --yes pushes without the question"
        )
    # what the Hub refuses is known before files are copied
    target = hub_target(arguments.push, private=arguments.private) if arguments.push else None
    folder = collect_for_hub(
        arguments.run_dir, arguments.out, license=arguments.license, pipeline_tag=arguments.pipeline_tag, **common
    )
    if not arguments.json:
        print(f"wrote {folder}")
    pushed = None
    if target is not None and (arguments.yes or _confirmed(target.question(folder))):
        pushed = push_to_hub(folder, target)
    if arguments.json:
        print_json({**folder.to_dict(), "pushed": pushed})
    elif target is not None:
        print(f"pushed {pushed}" if pushed else "not pushed")
    return 0


def _confirmed(question: str) -> bool:
    """Ask on the terminal; what is not a yes is a no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _report(arguments: argparse.Namespace) -> int:
    path = report(arguments.paths, arguments.out, which=arguments.which, skip_damaged=arguments.skip_damaged)
    if arguments.json:
        print_json({"file": path.name, "size": path.stat().st_size})
    else:
        print(f"wrote {path}")
    return 0
