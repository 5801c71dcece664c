"""File names that Windows accepts, also where Linux accepts more. Standard library only.

The rules are those of https://learn.microsoft.com/windows/win32/fileio/naming-a-file.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

__all__ = ["hash_suffix", "illegal_on_windows", "legal_form", "too_long", "windows_name"]

_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')
"""Also half surrogate pairs: that is how Python shows bytes of a Linux name that are not UTF-8."""
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{device}{number}" for device in ("COM", "LPT") for number in "123456789¹²³"
}
LONGEST_PATH = 260
"""Characters of a whole path, with the zero at its end, unless long paths are enabled."""
LONGEST = 255
"""Bytes of UTF-8: the limit of Linux file systems, and not above the 255 UTF-16 units of NTFS."""


def illegal_on_windows(name: str) -> str | None:
    """Why ``name`` cannot name a file in a given directory on Windows; ``None`` where it can."""
    if not name:
        return "is empty"
    if found := _ILLEGAL.search(name):
        return f"contains {found.group()!a}"
    if name.endswith((".", " ")):  # "." and ".." too
        return "ends in a dot or a space"
    if _is_device(name):
        return "is the name of a device"
    return f"is longer than {LONGEST} bytes" if len(name.encode()) > LONGEST else None


def legal_form(name: str, longest: int = LONGEST) -> str:
    """``name`` with everything replaced or cut off that Windows does not allow; other names may become the same."""
    legal = _ILLEGAL.sub("_", name).rstrip(". ") or "_"
    if _is_device(legal):
        legal = f"_{legal}"
    # ignore: half a character at the cut
    return legal.encode()[:longest].decode(errors="ignore").rstrip(". ")


def hash_suffix(name: str) -> str:
    """A few characters that tell ``name`` from all others."""
    return "-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def windows_name(name: str) -> str:
    """``name`` where it is legal, otherwise a legal name that no other becomes."""
    return (
        name
        if illegal_on_windows(name) is None
        else legal_form(name, LONGEST - len(hash_suffix(name))) + hash_suffix(name)
    )


def too_long(path: Path) -> str:
    """Why Windows may not find ``path``, to follow on "does not exist"; empty where length is not the reason."""
    length = len(str(path.absolute()))
    if sys.platform != "win32" or length < LONGEST_PATH:
        return ""
    return (
        f", or cannot be reached: its path has {length} characters, and without long paths enabled Windows takes "
        f"{LONGEST_PATH - 1}. Move the folder to where its path is shorter, such as C:\\models"
    )


def _is_device(name: str) -> bool:
    """Windows looks at what stands before the first dot, in any case: ``aux.epoch=3.ep`` is a device."""
    return name.partition(".")[0].rstrip(" ").upper() in _DEVICES
