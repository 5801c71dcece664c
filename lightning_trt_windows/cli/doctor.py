"""The command ``doctor``: whether exports can work on this machine, or whether an artifact can run on it."""

from __future__ import annotations

import argparse
import sys
from typing import Any, get_args

from lightning_trt_windows.cli.console import print_json
from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.settings import BackendName

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "doctor",
        parents=[common],
        help="say whether exports can work on this machine, or an artifact can run on it",
        description="Say whether exports can work on this machine: versions, backend, disk, and one small export. With "
        "FILE, and on Windows, say whether artifacts can run on it: driver, GPU, PyTorch, TensorRT, disk.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="an artifact that is to run on this machine")
    parser.add_argument("--directory", default=".", metavar="DIR", help="where files will be written (default: .)")
    parser.add_argument("--backend", choices=get_args(BackendName), default="auto", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.file is not None or sys.platform == "win32":
        from lightning_trt_windows.runtime.pc_report import examine_pc

        findings = examine_pc(arguments.file, arguments.directory)
    else:
        from lightning_trt_windows.training.doctor import examine

        findings = examine(arguments.directory, arguments.backend)
    if arguments.json:
        print_json([vars(finding) for finding in findings])
    else:
        print(*findings, sep="\n")
    return 0 if all(finding.ok for finding in findings) else EnvironmentMismatchError.exit_code
