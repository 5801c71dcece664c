"""The tests of the PC's half under the Windows Python, with artifacts that this machine builds first."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.windows_python import wine
from tools.windows_python.cache import call
from tools.windows_python.project import REPOSITORY

__all__ = ["record", "run_tests"]

PLACES = ("artifact", "bundle", "cli", "runtime", "verification", "windows")
"""Folders below ``tests/`` in which the tests of the PC's half may take an export from Linux."""
HELPERS = ("support.stand_in", "support.recorded")
VARIABLE = "RECORDED_ARTIFACTS"


def record(folder: Path) -> int:
    """Fill ``folder`` with what a Windows machine tests: artifacts, and a bundle of one with this package's wheel.

    Returns:
        The exit status of pytest, whose tests build the artifacts.

    Raises:
        RecipeError: The wheel or the bundle cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    status = _build(folder, exporting())
    if status == 0:
        with tempfile.TemporaryDirectory() as place:
            call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, where=REPOSITORY)
            (wheel,) = Path(place).glob("*.whl")
            (artifact,) = folder.glob("*/mixed.windows.ep")
            options = ("--out", folder.absolute() / "bundle.zip", "--wheel", wheel)
            command = (sys.executable, "-m", "lightning_trt_windows", "collect", artifact.parent.absolute(), *options)
            call(*command, where=REPOSITORY)
    return status


def run_tests(python: Path, wheels: Path, arguments: Sequence[str]) -> int:
    """Run pytest here, for its artifacts, then there; the exit status is that of the first of them that fails.

    Args:
        python: Folder of ``python.exe``.
        wheels: Folder of the packages.
        arguments: For the pytest there, in place of all tests in two processes.

    Raises:
        RecipeError: Wine is not installed, or the package cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="recorded-") as recorded:
        files = exporting(arguments)
        if files and (status := _build(Path(recorded), files)):
            return status
        print("The tests of the PC's half under the Windows Python", flush=True)
        chosen = arguments or ("--numprocesses", "2", "--dist", "loadfile", "tests")
        command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen)
        return wine.run(python, wheels, command, {VARIABLE: wine.windows_path(Path(recorded))})


def exporting(arguments: Sequence[str] = ()) -> list[str]:
    """Tests of the PC's half that export something, which they leave for the Windows run: they import the helper.

    Args:
        arguments: For pytest. Where they name files, folders or tests, only those of them.
    """
    tests = REPOSITORY / "tests"
    chosen = [
        path for argument in arguments if (path := REPOSITORY / argument.partition("::")[0]).is_relative_to(tests)
    ]
    files = sorted(file for place in PLACES for file in (tests / place).rglob("test_*.py"))
    return [
        file.relative_to(REPOSITORY).as_posix()
        for file in files
        if not chosen or any(file.is_relative_to(path) for path in chosen)
        if any(helper in file.read_text(encoding="utf-8") for helper in HELPERS)
    ]


def _build(folder: Path, files: Sequence[str]) -> int:
    print("Building artifacts on Linux", flush=True)
    environment = {**os.environ, VARIABLE: str(folder.absolute()), "FUZZ_EXAMPLES": "1"}
    # the same options as for the other tests, so that two processes share the work
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses", "2", "--dist", "loadfile", *files]
    return subprocess.run(command, cwd=REPOSITORY, check=False, env=environment).returncode
