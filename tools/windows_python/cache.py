"""The folder in which what was built and unpacked is kept; nothing half made is ever taken from it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["RECIPE", "RecipeError", "call", "folder", "made"]

VARIABLE = "LIGHTNING_TRT_WINDOWS_CACHE"
"""Environment variable that names another folder."""
RECIPE = Path(__file__).with_name("recipe")
"""Files that are not Python: C sources and the list of wheels."""


class RecipeError(Exception):
    """Something that is needed is missing, or a step failed."""


def folder() -> Path:
    """The cache: ``~/.cache/lightning-trt-windows/windows``, or what ``LIGHTNING_TRT_WINDOWS_CACHE`` names."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).absolute() if chosen else Path.home() / ".cache" / "lightning-trt-windows" / "windows"


def made(name: str, sources: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, made by ``make`` unless it was made from the same ``sources`` before.

    It is made under another name and renamed when it is finished; folders of other recipes are deleted then.

    Args:
        name: What the folder holds, for instance ``"python"``.
        sources: Files of the recipe; another content of any of them makes another folder.
        make: Fills the folder that it is given.

    Raises:
        RecipeError: ``make`` failed.
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    place = folder() / f"{name}-{digest.hexdigest()[:12]}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f"{place.name}.unfinished-{os.getpid()}")
    print(f"Making {place}", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        unfinished.mkdir()
        make(unfinished)
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for other in place.parent.glob(f"{name}-*"):
        if other != place and ".unfinished-" not in other.name:
            shutil.rmtree(other, ignore_errors=True)
    print(f"Made in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return place


def call(*command: str | Path, where: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command in the folder ``where`` and return what it printed.

    Raises:
        RecipeError: It is not there, or fails; the message quotes the end of its output.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=where, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise RecipeError(
            f"{words[0]} was not found; `make windows` names the Debian packages that it needs"
        ) from error
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise RecipeError(f"{' '.join(words[:6])} ended with status {done.returncode}:\n{tail}")
    return done.stdout
