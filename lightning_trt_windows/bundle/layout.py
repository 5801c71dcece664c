"""Where each file goes in a bundle: names that Windows can hold, none of them twice whatever the case.

Standard library only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from lightning_trt_windows.artifact.windows_names import illegal_on_windows, windows_name
from lightning_trt_windows.bundle.gathering import Gathered

__all__ = ["ARTIFACTS", "ENGINES", "LONGEST", "key_of", "safe_issue", "with_folders"]

ARTIFACTS = "artifacts"
"""Folder of the artifacts in a bundle."""
ENGINES = "engines"
"""Folder of raw engines."""

LONGEST = 178
"""Characters of a name in a bundle. Unpacked to ``C:\\Users\\NAME\\Downloads\\BUNDLE``, with up to 20 characters for
NAME and 40 for BUNDLE, a path then has at most the 259 characters that Windows allows it."""


_NUMBER = 4
"""Characters of what is added to a folder where two artifacts would have one name."""


def with_folders(items: Sequence[Gathered], names: Sequence[str]) -> Iterator[tuple[Gathered, str]]:
    """Each artifact with its folder in the bundle, ``artifacts`` or one below it.

    The parts of the paths that all have in common say nothing and are left out: two versions of one run become
    ``artifacts/version_0`` and ``artifacts/version_1``. Files keep their names, which the manifests hold.

    Args:
        items: What goes into the bundle.
        names: Of each directory that was searched.

    Returns:
        Pairs of an artifact and the name of its folder.
    """
    several = len({item.run for item in items}) > 1
    paths = {(i.run, i.folder): ((names[i.run],) if several else ()) + i.folder.parts for i in items}
    before = _common(list(paths.values()))
    after = _common([tuple(reversed(path[before:])) for path in paths.values()])
    taken: set[str] = set()
    for item in items:
        path = paths[item.run, item.folder]
        parts = [windows_name(part) for part in path[before : len(path) - after]]
        folder = PurePosixPath(ARTIFACTS, *parts)
        if len(str(folder)) + 1 + max(len(file.name) for file in item.files) > LONGEST - _NUMBER:
            folder = PurePosixPath(ARTIFACTS, f"run_{item.run}")
        number, place = 1, folder
        while any(key_of(f"{place}/{file.name}") in taken for file in item.files):
            number += 1
            place = PurePosixPath(f"{folder}/{number}" if str(folder) == ARTIFACTS else f"{folder}-{number}")
        taken |= {key_of(f"{place}/{file.name}") for file in item.files}
        yield item, str(place)


def key_of(name: str) -> str:
    """Equal for names that some file system takes for one: Windows ignores case, macOS how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def safe_issue(name: str) -> str | None:
    """Why a file of this name must not be written below a directory; ``None`` where it may.

    Slashes separate folders, and every part must be a name that Windows allows: so nothing is absolute, has a drive,
    goes up or is a device.
    """
    if "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is not a relative path with forward slashes"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "leaves the folder, or is no plain path"
        if why := illegal_on_windows(part):
            return f"{part!r} {why}"
    return None


def _common(paths: Sequence[tuple[str, ...]]) -> int:
    """How many parts all of ``paths`` begin with."""
    count = 0
    for parts in zip(*paths):
        if len(set(parts)) > 1:
            break
        count += 1
    return count
