"""The command line: ``python -m tools.windows_python prepare | record | run | test | where``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.windows_python import cache, wine
from tools.windows_python.cache import RecipeError
from tools.windows_python.cpython import prepare_python
from tools.windows_python.suite import record, run_tests
from tools.windows_python.wheels import prepare_wheels


def main(arguments: list[str]) -> int:
    """Do what the arguments say; 0 or the exit status of the Windows Python, 2 where something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.windows_python", description="A Python for Windows, on Debian."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="compile CPython and unpack the wheels, unless the cache has them")
    commands.add_parser("where", help="say where the cache is")
    recording = commands.add_parser("record", help="only build the artifacts that the tests there read, into a folder")
    recording.add_argument("folder", type=Path, help="for artifacts, and a bundle with this package's wheel")
    commands.add_parser("run", help="start the Windows Python with the arguments that follow; the status is its own")
    commands.add_parser("test", help="run the tests of the PC's half there, with artifacts that are built here")
    # everything behind "run" and "test" is for the Windows Python, options too
    chosen = parser.parse_args(arguments[:1] if arguments[:1] in (["run"], ["test"]) else arguments)
    if chosen.command == "where":
        print(cache.folder())
        return 0
    try:
        if chosen.command == "record":
            return record(chosen.folder)
        python, wheels = prepare_python(), prepare_wheels()
        wine.prepare_wine()
        if chosen.command == "prepare":
            return 0
        start = run_tests if chosen.command == "test" else wine.run
        return start(python, wheels, arguments[1:])
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
