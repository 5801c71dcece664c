"""Files that another program has open, which Windows neither replaces nor lets others read. Standard library only.

A virus scanner, an indexer or a second process holds a new file for a moment; so an operation is tried again for two
seconds before it counts as failed. On other systems nothing is ever tried again: what is open can be replaced there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["OPEN_ELSEWHERE", "SECONDS", "is_open_elsewhere", "patiently", "reason_of"]

SECONDS = 2.0
"""Seconds for which an operation is tried again."""
OPEN_ELSEWHERE = "it is open in another program (a virus scanner, an editor, a second process); close it and try again"

_SHARING = {32, 33, 1224}
"""Codes of Windows: sharing violation, lock violation, a mapped section."""
_DENIED = 5
"""What Windows answers, too, when a file that is open or mapped is to be replaced."""
_PAUSE = 0.05
_Result = TypeVar("_Result")


def patiently(operation: Callable[[], _Result], path: Path, *, replaces: bool = False) -> _Result:
    """Return what ``operation`` returns, called again while another program has ``path`` open.

    Args:
        operation: Opens, replaces or deletes ``path``; called once on systems other than Windows.
        path: The file.
        replaces: Whether it writes over ``path`` or deletes it, rather than reads it.

    Returns:
        The result of the first call that succeeded.

    Raises:
        OSError: Whatever the last call raised.
    """
    end = time.monotonic() + SECONDS
    while True:
        try:
            return operation()
        except PermissionError as error:
            if time.monotonic() >= end or not is_open_elsewhere(error, path, replaces=replaces):
                raise
        time.sleep(_PAUSE)


def is_open_elsewhere(error: OSError, path: Path, *, replaces: bool = False) -> bool:
    """Whether ``error``, met on ``path``, means that another program has it open; never on other systems than Windows.

    Args:
        error: As it was caught.
        path: The file that was to be read or replaced.
        replaces: Whether it was to be replaced or deleted, in a folder that can be written.

    Returns:
        ``False`` on systems other than Windows.
    """
    if sys.platform != "win32" or not isinstance(error, PermissionError):
        return False
    code = getattr(error, "winerror", None)
    if code in _SHARING:
        return True
    if not path.is_file():
        return False
    # Python's own open() does not hand on the code, and a file that is mapped or open answers "denied" to a replacement
    return (replaces and code == _DENIED and os.access(path, os.W_OK)) or _is_or_was_shared(path)


def reason_of(error: OSError, path: Path, *, replaces: bool = False) -> str:
    """Why ``path`` could not be read or replaced, for a sentence that has named it."""
    if is_open_elsewhere(error, path, replaces=replaces):
        return OPEN_ELSEWHERE
    if path.is_dir():  # Windows says "permission denied"
        return "it is a directory"
    return error.strerror or str(error)


def _is_or_was_shared(path: Path) -> bool:
    """Whether Windows, asked to open ``path`` for reading, says that another program has it open, or does open it.

    It was denied a moment ago; where it no longer is, that program has just closed it.
    """
    if sys.platform != "win32":
        return False
    import ctypes

    read, share_all, existing = 0x80000000, 7, 3
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateFileW.restype = ctypes.c_void_p
    handle = kernel.CreateFileW(str(path), read, share_all, None, existing, 0, None)
    code = ctypes.get_last_error()
    if handle not in (None, ctypes.c_void_p(-1).value):
        kernel.CloseHandle(ctypes.c_void_p(handle))
        return True
    return code in _SHARING
