"""Files that appear whole or not at all, and their hashes. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_trt_windows.artifact.open_elsewhere import OPEN_ELSEWHERE, is_open_elsewhere, patiently
from lightning_trt_windows.artifact.windows_names import too_long
from lightning_trt_windows.errors import OutputError

if TYPE_CHECKING:  # part of Python from 3.12 on
    from typing_extensions import Buffer

__all__ = [
    "TEMPORARY_PREFIX",
    "HashingFile",
    "atomic_file",
    "link_or_copy",
    "output_errors",
    "readable_size",
    "replacing",
    "sha256_of",
    "sha256_of_stream",
    "temporary_name",
]

TEMPORARY_PREFIX = ".lightning-trt-windows-"
"""Begins the name of every temporary file; what a killed process leaves behind can be deleted by it."""

_CHUNK = 1 << 20

_WRITE_BACK = 16 << 20
"""Bytes after which the operating system is asked to begin writing to the disk."""


class HashingFile:
    """Write-only stream that knows the size and SHA-256 of what went through it.

    It can neither seek nor tell, so that ``zipfile.ZipFile(file, "w")`` streams into it: sizes then follow each
    member's data, as they do in the archives that torch itself writes.
    """

    def __init__(self, stream: FileIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._hash = hashlib.sha256()
        self._handed_over = 0
        self.size = 0
        """Bytes written so far."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: Buffer) -> int:
        """Write all of ``data``.

        Returns:
            The number of bytes.

        Raises:
            OutputError: The operating system refused.
        """
        with memoryview(data).cast("B") as view, output_errors(self._path, self.size + view.nbytes):
            done = 0
            while done < view.nbytes:  # a raw stream may take less than it is given
                done += self._stream.write(view[done:])
            self._hash.update(view)
            self.size += done
        if self.size - self._handed_over >= _WRITE_BACK:
            self._begin_write_back()
        return done

    def _begin_write_back(self) -> None:
        """Let the disk work while the rest is computed, so that the last ``fsync`` finds little to wait for."""
        # Linux takes this advice as "write it out now", and keeps in memory what is not on the disk yet
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                length = self.size - self._handed_over
                os.posix_fadvise(self._stream.fileno(), self._handed_over, length, os.POSIX_FADV_DONTNEED)
        self._handed_over = self.size

    def flush(self) -> None:
        """Do nothing, because nothing is buffered; ``zipfile`` calls it."""


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, mode: int = 0o666) -> Iterator[HashingFile]:
    """Write a file that appears under ``path`` whole, or not at all; ``mode`` as for ``os.open``, less the umask.

    Raises:
        OutputError: The file cannot be written; the operating system's reason is chained.
    """
    path = Path(path)
    with replacing(path) as temporary:
        with output_errors(path, 0):
            # not tempfile, whose files only their owner may read. Unbuffered: closing has nothing left to fail with
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
            stream = FileIO(descriptor, "w")
        with stream:
            file = HashingFile(stream, path)
            yield file
            with output_errors(path, file.size):
                os.fsync(stream.fileno())
    _sync_directory(path.parent)


def temporary_name(suffix: str = ".tmp") -> str:
    """Make up a name that no file has, and by whose ``TEMPORARY_PREFIX`` leftovers of a killed process are found."""
    return f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{suffix}"


@contextlib.contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Give the block a temporary name beside ``path``, and the file that it makes there the name ``path`` at the end.

    Where the block fails, ``path`` is left as it was, and nothing is left under the temporary name.

    Args:
        path: The file that appears, in place of an older one.
        suffix: The end of the temporary name, for programs that look at it.

    Raises:
        OutputError: The file cannot be given the name ``path``.
    """
    temporary = path.with_name(temporary_name(suffix))
    try:
        yield temporary
        with output_errors(path, 0):
            patiently(lambda: temporary.replace(path), path, replaces=True)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def link_or_copy(source: Path, path: Path) -> None:
    """Make ``path`` a second name of ``source``, or a copy on file systems without hard links; whole or not at all.

    Raises:
        OutputError: The file can be neither linked nor copied.
    """
    with replacing(path) as temporary, output_errors(path, 0):
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a file, in hexadecimal, reading it in pieces.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    path = Path(path)
    with patiently(lambda: path.open("rb", buffering=0), path) as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: FileIO | BufferedReader) -> str:
    """Compute the SHA-256 of what ``stream`` holds from its position to its end, in hexadecimal.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: The stream cannot be read.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    while count := stream.readinto(buffer):
        digest.update(buffer[:count])
    return digest.hexdigest()


def readable_size(size: int) -> str:
    """``size`` bytes for humans, in powers of ten: ``"12.3 MB"``."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


@contextlib.contextmanager
def output_errors(path: Path, size: int) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an OutputError that says what to do.

    Args:
        path: The file that is being written.
        size: Bytes that it needs so far, for the message.

    Raises:
        OutputError: The operating system refused; its exception is chained.
    """
    try:
        yield
    except OutputError:  # says it already
        raise
    except OSError as error:
        denied = f"no permission to write in {path.parent}; choose another directory"
        needed = f"at least {readable_size(size)} are needed; free some or choose another directory"
        reasons = {
            errno.ENOSPC: f"no space left on the device, {needed}",
            errno.EDQUOT: f"the disk quota is exceeded, {needed}",
            errno.ENOENT: f"the directory {path.parent} does not exist{too_long(path) or '; create it'}",
            errno.ENOTDIR: f"{path.parent} is not a directory",
            errno.EROFS: f"the file system of {path.parent} is read-only; choose another directory",
            errno.EACCES: denied,
            errno.EPERM: denied,
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        if isinstance(error, (IsADirectoryError, PermissionError)) and path.is_dir():
            reason = f"{path} is a directory"
        elif path.parent.is_file():  # Windows says that it does not exist
            reason = f"{path.parent} is not a directory"
        elif is_open_elsewhere(error, path, replaces=True):
            reason = OPEN_ELSEWHERE
        raise OutputError(f"cannot write {path}: {reason}") from error


def _sync_directory(directory: Path) -> None:
    """Make a rename last through a power cut. Windows has no such call, and some network file systems refuse it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
