"""The tests of the PC's half under the Windows Python, with artifacts that this machine builds first."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.windows_python import wine
from tools.windows_python.project import REPOSITORY

__all__ = ["run_tests"]

EXPORTING = ("tests/artifact/test_fuzz.py", "tests/runtime", "tests/verification", "tests/windows")
"""Tests of the PC's half that export something; they leave it for the Windows run."""
VARIABLE = "RECORDED_ARTIFACTS"


def run_tests(python: Path, wheels: Path, arguments: Sequence[str]) -> int:
    """Run pytest here, for its artifacts, then there; the exit status is that of the first of them that fails.

    Args:
        python: Folder of ``python.exe``.
        wheels: Folder of the packages.
        arguments: For the pytest there, in place of ``tests``.

    Raises:
        RecipeError: Wine is not installed, or the package cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="recorded-") as recorded:
        print("Building artifacts on Linux", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *EXPORTING], cwd=REPOSITORY, check=False,
            env={**os.environ, VARIABLE: recorded, "FUZZ_EXAMPLES": "1"},
        )  # fmt: skip
        if done.returncode:
            return done.returncode
        print("The same tests and the others of the PC's half under the Windows Python", flush=True)
        command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or ["tests"]))
        return wine.run(python, wheels, command, {VARIABLE: wine.windows_path(Path(recorded))})
