"""This project as a PC gets it: its wheel, built from the checkout and unpacked."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.windows_python.cache import call, folder

__all__ = ["REPOSITORY", "bytecode", "installed_project"]

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def installed_project() -> Iterator[Path]:
    """A folder with the package as it is now and its metadata; deleted afterwards.

    Raises:
        RecipeError: pip cannot build it.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="project-", dir=folder()) as place:
        options = (
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-compile",
            "--no-build-isolation",
            "--no-index",
        )
        call(sys.executable, "-m", "pip", "install", *options, "--target", place, ".", where=REPOSITORY)
        try:
            yield Path(place)
        finally:  # the bytecode of a folder that no other run has
            shutil.rmtree(bytecode() / Path(place).relative_to("/"), ignore_errors=True)


def bytecode() -> Path:
    """Where the Windows Python keeps bytecode: not among the files of the repository."""
    return folder() / "bytecode"
