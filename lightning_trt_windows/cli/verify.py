"""The command ``verify``: whether an artifact is whole and computes what the module does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lightning_trt_windows.bundle.gathering import gather
from lightning_trt_windows.cli.console import print_json
from lightning_trt_windows.errors import ArtifactError, ConfigurationError
from lightning_trt_windows.storage.remote_artifact import local_copy
from lightning_trt_windows.storage.remote_file import is_remote

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "verify",
        parents=[common],
        help="say whether an artifact is whole and computes what the module does",
        description="Check an artifact: files, structure, this machine, and on a GPU the numbers against goldens, the "
        "reference outputs that were recorded at the export. Exit code 7 if it is damaged, 11 if it computes something "
        "else; 0 also if the numbers were not checked, which the output says.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="the .windows.ep or the .windows.json, or a directory for all in and below it; a path, or a URL, of which "
        "a copy is made",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--no-numbers", action="store_true", help="leave the numbers out")
    parser.add_argument(
        "--require-numbers", action="store_true", help="exit code 3 where the numbers could not be checked"
    )
    parser.add_argument("--golden", metavar="FILE", help="goldens elsewhere than beside the artifact")
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help="relative norm that is allowed (default: by dtype, see docs)"
    )
    parser.add_argument("--device", default="cuda:0", help="the GPU (default: %(default)s)")
    parser.add_argument(
        "--key", action="append", default=[], metavar="FILE", help="public key that must have signed; may be repeated"
    )
    parser.add_argument("--write", action="store_true", help="write the verdict into the manifest; sign it after that")
    parser.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.write and is_remote(arguments.file):
        raise ConfigurationError(
            f"--write writes into the manifest of an artifact on this machine, and {arguments.file} is elsewhere: copy "
            "it here (lightning_trt_windows.fetch), verify the copy with --write, and copy its manifest back"
        )
    path = local_copy(arguments.file)
    if not path.is_dir():
        return _one(arguments, path, None)
    found = gather([path], content=False, skip_damaged=True, needs_some=True)
    said: list[Any] = []
    codes = [_one(arguments, item.artifact.path, said) for item in found.artifacts]
    for issue in found.damaged:
        print(f"error: {issue}", file=sys.stderr)
    if arguments.json:
        print_json({"directory": path.name, "issues": list(found.damaged), "artifacts": said})
    if found.damaged:
        return ArtifactError.exit_code
    return next((code for code in codes if code), 0)


def _one(arguments: argparse.Namespace, file: str | Path, said: list[Any] | None) -> int:
    """Verify one artifact; what is JSON goes into ``said``, or is printed without it."""
    # here and not above: this may bring torch, which takes seconds
    from lightning_trt_windows.verification.verify import record_verification, verify

    found = verify(
        file,
        golden=arguments.golden,
        tolerance=arguments.tolerance,
        device=arguments.device,
        numbers=not arguments.no_numbers,
        trusted_keys=arguments.key or None,
    )
    if not arguments.json:
        print(found)
    elif said is None:
        print_json(found.to_dict())
    else:
        said.append(found.to_dict())
    if arguments.write:
        record_verification(found)
    error = found.error(require_numbers=arguments.require_numbers)
    if error is None:
        return 0
    if arguments.json:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code
