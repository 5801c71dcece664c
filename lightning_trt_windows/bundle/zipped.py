"""Zip archives that come out the same byte for byte, and reading them without leaving the folder.

Members are stored: engines do not get smaller, and another zlib would give other bytes. Standard library only.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lightning_trt_windows.artifact.ep_file import zip_members
from lightning_trt_windows.artifact.files import output_errors, replacing
from lightning_trt_windows.artifact.open_elsewhere import patiently, reason_of
from lightning_trt_windows.bundle.layout import key_of, safe_issue
from lightning_trt_windows.errors import ArtifactError, OutputError

__all__ = [
    "Member",
    "archive_bytes",
    "bytes_member",
    "content_of",
    "extract_archive",
    "file_member",
    "members_of",
    "text_member",
    "write_archive",
]

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The zip format's first moment."""
_UNIX = 3
"""System whose kind of permissions the archive has, on whatever system it is written."""
_READABLE = 0o100644 << 16
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file to put into an archive."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    pieces: Callable[[], Iterable[bytes | bytearray | memoryview]]
    """Its content, from the beginning each time it is called."""
    origin: str
    """Where the content comes from, for messages."""


def text_member(name: str, text: str) -> Member:
    """A file with this text, as UTF-8."""
    return bytes_member(name, text.encode())


def bytes_member(name: str, data: bytes) -> Member:
    """A file with this content."""
    return Member(name, len(data), hashlib.sha256(data).hexdigest(), lambda: [data], name)


def file_member(name: str, path: Path, size: int, sha256: str) -> Member:
    """A copy of the file at ``path``, whose size and hash are known."""

    def pieces() -> Iterator[memoryview]:
        buffer = memoryview(bytearray(_CHUNK))
        with patiently(lambda: path.open("rb", buffering=0), path) as stream:
            while count := stream.readinto(buffer):
                yield buffer[:count]

    return Member(name, size, sha256, pieces, str(path))


def write_archive(path: Path, members: Iterable[Member]) -> None:
    """Write ``members`` in their order to a zip that appears whole or not at all; at most one piece is in memory.

    Raises:
        ArtifactError: The content of a member is not what it was when its hash was taken.
        OutputError: The file cannot be written.
    """
    written = 0
    # a real file rather than a stream: sizes then stand before the data, where every reader of zips finds them
    with replacing(path) as temporary, output_errors(path, 0), temporary.open("xb") as stream:
        with _new_archive(stream) as archive:
            for member in members:
                with output_errors(path, written + member.size):
                    _write(archive, member)
                written += member.size
        stream.flush()
        os.fsync(stream.fileno())


def archive_bytes(members: Iterable[Member]) -> bytes:
    """The same archive in memory, for small members."""
    stream = io.BytesIO()
    with _new_archive(stream) as archive:
        for member in members:
            _write(archive, member)
    return stream.getvalue()


def _new_archive(stream: IO[bytes]) -> zipfile.ZipFile:
    return zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)


def _write(archive: zipfile.ZipFile, member: Member) -> None:
    entry = zipfile.ZipInfo(member.name, _EPOCH)
    entry.create_system, entry.external_attr, entry.file_size = _UNIX, _READABLE, member.size
    digest, size = hashlib.sha256(), 0
    with archive.open(entry, "w") as out:
        for piece in _read(member):
            digest.update(piece)
            size += len(piece)
            if size > member.size:
                break
            out.write(piece)
    if (size, digest.hexdigest()) != (member.size, member.sha256):
        raise ArtifactError(member.origin, ["changed while it was being copied; nothing was written"])


def _read(member: Member) -> Iterator[bytes | bytearray | memoryview]:
    """The content of a member; where its source cannot be read, that is not the archive's fault."""
    try:
        yield from member.pieces()
    except FileNotFoundError as error:
        raise ArtifactError(member.origin, ["was deleted while the bundle was made"]) from error
    except OSError as error:
        why = reason_of(error, Path(member.origin))
        raise ArtifactError(member.origin, [f"cannot be read: {why}"]) from error


def members_of(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files in an archive by name, none of which would leave the folder it is unpacked to.

    Returns:
        Entries of the archive, by name.

    Raises:
        ArtifactError: The file is not a zip, or has names that do not belong into a bundle; the error lists all of
            them.
    """
    infos = zip_members(path)
    if issues := list(_name_issues(infos)):
        raise ArtifactError(path, issues)
    return {info.filename: info for info in infos}


def _name_issues(infos: Iterable[zipfile.ZipInfo]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for info in infos:
        name = info.orig_filename
        kind = info.external_attr >> 28
        if why := safe_issue(name):
            yield f"the name {name!a}: {why}"
        elif kind not in (0, 0o10):  # nothing, as DOS writes it, or a regular file
            yield f"{name!a} is a link or something else that is not a file"
        elif info.compress_type != zipfile.ZIP_STORED:
            yield f"{name!a} is compressed, which nothing in a bundle is"
        elif info.flag_bits & 1:
            yield f"{name!a} is encrypted"
        elif (other := seen.setdefault(key_of(name), name)) != name or seen.get(f"={name}"):
            yield f"{name!a} and {other!a} are one file on Windows"
        seen[f"={name}"] = name


def content_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member in pieces.

    Returns:
        The pieces, in order.

    Raises:
        ArtifactError: The member is damaged.
    """
    try:
        with archive.open(info) as source:
            while piece := source.read(_CHUNK):
                yield piece
    # what zipfile raises where the place of a member, its own header, its length or its checksum is wrong
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        struct.error,
        ValueError,
    ) as error:
        raise ArtifactError(archive.filename, [f"{info.filename} cannot be read: {error}"]) from error


def extract_archive(path: Path, folder: Path, hashes: Mapping[str, tuple[int, str]]) -> list[Path]:
    """Write the files of an archive into a folder that is not there yet, or empty.

    Args:
        path: The archive.
        folder: Made where it is missing.
        hashes: Size and SHA-256 of every file that may be in it.

    Returns:
        The files that were written.

    Raises:
        ArtifactError: A name that would leave the folder, a file that is not listed or differs.
        OutputError: The folder cannot be written, or holds something.
    """
    infos = members_of(path)
    if unlisted := [name for name in infos if name not in hashes]:
        raise ArtifactError(path, [f"holds {name!a}, which its list does not have" for name in unlisted])
    with output_errors(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty; unpack into a new folder")
    written = []
    with zipfile.ZipFile(path) as archive:
        for name, info in infos.items():
            size, sha256 = hashes[name]
            target = folder.joinpath(*name.split("/"))
            with output_errors(target, size):
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256()
                with target.open("xb") as out:
                    for piece in content_of(archive, info):
                        digest.update(piece)
                        out.write(piece)
            if info.file_size != size or digest.hexdigest() != sha256:
                target.unlink()
                raise ArtifactError(path, [f"{name} is not the file that went into the bundle"])
            written.append(target)
    return written
