"""Real Windows wheels, unpacked side by side into one folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.windows_python.cache import RECIPE, call, made

__all__ = ["prepare_wheels"]

WHEELS, SOURCES = RECIPE / "wheels.txt", RECIPE / "source_distributions.txt"
UNUSED = ("torch/include", "torch/share", "torch/lib/*.lib", "torch/testing/_internal/distributed")
"""What compiling against PyTorch takes, not running it."""


def prepare_wheels() -> Path:
    """The folder with the packages; downloaded with pip where the cache has none.

    Raises:
        RecipeError: pip finds one of them nowhere; its own message is quoted.
    """
    return made("wheels", [Path(__file__), WHEELS, SOURCES], _make)


def _make(place: Path) -> None:
    platform = ("--platform", "win_amd64", "--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:")
    # the dependencies of a Windows machine are listed: pip would take those of this one
    install = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-deps",
    )
    call(*install, *platform, "--target", place, "--requirement", WHEELS, where=place)
    call(*install, "--target", place, "--requirement", SOURCES, where=place)
    for pattern in UNUSED:
        for path in place.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
