"""The command ``inspect``: what an artifact is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.inspection import inspect

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "inspect",
        parents=[common],
        help="say what an artifact is and whether it is whole",
        description="Say what an artifact is and whether it is whole. Needs neither PyTorch nor a GPU, runs nothing.",
    )
    parser.add_argument("file", metavar="FILE", help="the .windows.ep or the .windows.json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="read all of the .ep and compare it with its hashes")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    inspection = inspect(arguments.file, check=arguments.check)
    print(json.dumps(inspection.to_dict(), indent=2, ensure_ascii=False) if arguments.json else inspection)
    return ArtifactError.exit_code if inspection.issues else 0
