"""An ``.ep`` that is opened once: its hash, its members and the engines in it. Standard library only.

All that reads artifacts goes through ``EpFile``: what was compared with the manifest is what is parsed afterwards, also
when the name is given to another file in between.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lightning_trt_windows.artifact.engine_header import EngineHeader, read_header
from lightning_trt_windows.artifact.files import sha256_of_stream
from lightning_trt_windows.artifact.manifest import EngineRecord, Manifest
from lightning_trt_windows.artifact.open_elsewhere import patiently, reason_of
from lightning_trt_windows.artifact.payload_reader import (
    decoded_pieces,
    member_start,
    read_head,
    read_payload,
    read_without_payloads,
)
from lightning_trt_windows.artifact.windows_names import too_long
from lightning_trt_windows.errors import ArtifactError

__all__ = ["EpFile", "zip_members"]

_HEADER = 30
"""Bytes before the name of a member and its content."""


class EpFile:
    """An ``.ep``, open for reading; a context manager that closes it.

    Args:
        path: The file.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = patiently(lambda: path.open("rb"), path)

    def __enter__(self) -> EpFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.stream.fileno()).st_size

    def sha256(self) -> str:
        """Compute the SHA-256 of the file, in hexadecimal.

        Returns:
            The hash.

        Raises:
            OSError: The file cannot be read.
        """
        self.stream.seek(0)
        return sha256_of_stream(self.stream)

    @functools.cached_property
    def archive(self) -> zipfile.ZipFile:
        """The file as a zip archive.

        Raises:
            ArtifactError: The file is not a zip archive.
        """
        with _damaged_directories(self.path, "is not a readable zip archive, which an .ep is"):
            return zipfile.ZipFile(self.stream)

    @functools.cached_property
    def members(self) -> dict[str, zipfile.ZipInfo]:
        """The archive's directory by name; no member is read.

        Raises:
            ArtifactError: The file is not a zip archive, two members have one name, or a member would lie outside of
                the file.
        """
        infos = self.archive.infolist()
        members = {info.filename: info for info in infos}
        if len(members) != len(infos):
            raise ArtifactError(self.path, ["has two members of the same name"])
        size = self.size
        outside = [name for name, info in members.items() if info.header_offset < 0 or _end(info) > size]
        if outside:
            raise ArtifactError(self.path, [f"member {name!r} would lie outside of the file" for name in outside])
        return members

    def issues(self, manifest: Manifest, *, content: bool = True) -> Iterator[str]:
        """Say how the file differs from what ``manifest`` says, sentence by sentence.

        Args:
            manifest: The manifest beside it.
            content: Whether to compare every byte by the hash.

        Returns:
            The sentences; none where the file is what the manifest says.

        Raises:
            OSError: The file cannot be read.
        """
        record = manifest.ep
        if self.size != record.size:
            yield f"has {self.size} bytes instead of {record.size}: incomplete, or of another export than its manifest"
        elif content and (found := self.sha256()) != record.sha256:
            yield f"its content is not that of the export: SHA-256 is {found} instead of {record.sha256}"
        try:
            members = self.members
        except ArtifactError as error:
            yield from error.issues
            return
        compressed = [name for name, info in members.items() if info.compress_type != zipfile.ZIP_STORED]
        # a few kilobytes of it become gigabytes when they are read
        yield from (f"member {name!r} is compressed, which no member of an .ep is" for name in compressed)
        yield from _location_issues(manifest, members)

    def headers(self, engines: Iterable[EngineRecord]) -> dict[str, EngineHeader]:
        """Read what engines say about themselves, by name, as far as the format of their headers is known.

        Returns:
            The headers, by name of the engine.

        Raises:
            ArtifactError: What stands there is not base64.
        """
        found = ((engine.name, read_header(self.head(engine))) for engine in engines)
        return {name: header for name, header in found if header is not None}

    def head(self, engine: EngineRecord) -> bytes:
        """Read the first bytes of ``engine``, enough for ``read_header``.

        Returns:
            The bytes.

        Raises:
            ArtifactError: What stands there is not base64.
        """
        with self._reading(engine) as start:
            return read_head(self.stream, start, engine)

    def engine(self, engine: EngineRecord) -> memoryview:
        """Read the bytes of ``engine`` into memory of their own.

        Returns:
            The bytes, writable.

        Raises:
            ArtifactError: What stands there is not base64 of the size that the manifest gives.
        """
        with self._reading(engine) as start:
            return read_payload(self.stream, start, engine)

    def engine_pieces(self, engine: EngineRecord) -> Iterator[bytes | bytearray]:
        """Read the bytes of ``engine`` piece by piece, nothing before and nothing after them.

        Returns:
            The pieces, in order.

        Raises:
            ArtifactError: What stands there is not base64 of the size that the manifest gives.
        """
        with self._reading(engine) as start:
            yield from decoded_pieces(self.stream, start, engine)

    def without_payloads(self, member: str, engines: Iterable[tuple[str, EngineRecord]]) -> Iterator[bytes]:
        """Read a member with a short token in place of each payload.

        Args:
            member: Its name in the archive.
            engines: Token and record of each engine in it.

        Returns:
            The pieces, in order.

        Raises:
            ArtifactError: The archive's directory points at something that is not this member.
        """
        info = self.members[member]
        return read_without_payloads(self.stream, member_start(self.stream, info), info.file_size, engines)

    @contextlib.contextmanager
    def _reading(self, engine: EngineRecord) -> Iterator[int]:
        """Give the block the byte at which the engine's member begins; name file and engine in what goes wrong."""
        try:
            yield member_start(self.stream, self.members[engine.location.member])
        except ArtifactError as error:
            raise ArtifactError(self.path, [f"engine {engine.name}: {issue}" for issue in error.issues]) from error


def zip_members(path: Path) -> list[zipfile.ZipInfo]:
    """Read the directory of a zip archive; no member is read.

    Returns:
        Its entries, in the order of the directory.

    Raises:
        ArtifactError: The file does not exist, cannot be read or is not a zip archive.
    """
    try:
        with (
            patiently(lambda: path.open("rb"), path) as stream,
            _damaged_directories(path, "is not a readable zip archive"),
            zipfile.ZipFile(stream) as archive,
        ):
            return archive.infolist()
    except FileNotFoundError as error:
        raise ArtifactError(path, [f"does not exist{too_long(path)}"]) from error
    except OSError as error:
        raise ArtifactError(path, [f"cannot be read: {reason_of(error, path)}"]) from error


@contextlib.contextmanager
def _damaged_directories(path: Path, issue: str) -> Iterator[None]:
    """Turn what zipfile raises on damaged directories into an ArtifactError."""
    try:
        yield
    # struct.error and ValueError where a length or a name is nonsense
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise ArtifactError(path, [f"{issue}: {error}"]) from error


def _end(info: zipfile.ZipInfo) -> int:
    """Where the file must end at the earliest for this member to be in it."""
    stored = info.file_size if info.compress_type == zipfile.ZIP_STORED else 0
    return info.header_offset + _HEADER + max(info.compress_size, stored)


def _location_issues(manifest: Manifest, members: dict[str, zipfile.ZipInfo]) -> Iterator[str]:
    """Each payload lies inside an uncompressed member, and no two overlap."""
    end_of_last: dict[str, tuple[int, str]] = {}
    for engine in sorted(manifest.engines, key=lambda engine: engine.location.offset):
        place = engine.location
        info = members.get(place.member)
        if info is None:
            yield f"engine {engine.name}: the archive has no member {place.member!r}"
        elif info.compress_type != zipfile.ZIP_STORED:
            yield f"engine {engine.name}: member {place.member!r} is compressed, so that offsets mean nothing"
        elif place.offset + place.length > info.file_size:
            end = place.offset + place.length
            yield f"engine {engine.name}: should end at byte {end} of {place.member!r}, which has {info.file_size}"
        last, name = end_of_last.get(place.member, (0, ""))
        if place.offset < last:
            yield f"engine {engine.name}: overlaps engine {name} in {place.member!r}"
        end_of_last[place.member] = (max(last, place.offset + place.length), engine.name)
