"""Engine payloads out of an ``.ep``: base64 text in the middle of a zip member, gigabytes of it.

The text is decoded piece by piece from the file into one buffer of the engine's size: it never becomes one string,
never meets a JSON parser, and costs no memory but that buffer. ``pybase64`` decodes it where it is installed.
"""

from __future__ import annotations

import binascii
import contextlib
import functools
import mmap
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from typing import BinaryIO

from lightning_trt_windows.artifact.engine_header import HEADER_SIZE
from lightning_trt_windows.artifact.manifest import EngineRecord
from lightning_trt_windows.errors import ArtifactError

__all__ = ["decoded_pieces", "member_start", "read_head", "read_payload", "read_without_payloads"]

_LOCAL_HEADER = 30
"""Bytes of a zip member's own header, before its name and its extra field."""
_UTF_8 = 0x800
"""Flag of a member whose name is UTF-8, and not of code page 437."""
_PIECE = 1 << 20
"""Characters decoded at a time: a multiple of 4, and few enough to stay in the processor's cache."""


def member_start(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Find the byte of the file at which the content of an uncompressed member begins.

    Returns:
        The offset in bytes.

    Raises:
        ArtifactError: The archive's directory points at something that is not this member.
    """
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER)
    if len(header) == _LOCAL_HEADER and header[:4] == b"PK\x03\x04" and info.compress_type == zipfile.ZIP_STORED:
        name, extra = struct.unpack_from("<2H", header, 26)
        # as zipfile decodes it
        if stream.read(name) == info.orig_filename.encode("utf-8" if info.flag_bits & _UTF_8 else "cp437"):
            return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)
    raise ArtifactError(info.filename, ["is not an uncompressed member where the archive's directory says"])


def read_payload(stream: BufferedReader, start: int, engine: EngineRecord) -> memoryview:
    """Read the bytes of ``engine`` into memory of their own.

    Args:
        stream: The archive.
        start: Byte at which the engine's member begins.
        engine: The record of the engine.

    Returns:
        The bytes, writable.

    Raises:
        ArtifactError: What stands there is not base64 of the size that the manifest gives.
    """
    plan, done = _memory(engine.size), 0
    for piece in decoded_pieces(stream, start, engine):
        plan[done : done + len(piece)] = piece
        done += len(piece)
    return plan


def decoded_pieces(stream: BufferedReader, start: int, engine: EngineRecord) -> Iterator[bytes | bytearray]:
    """Read the bytes of ``engine`` piece by piece, as ``read_payload`` does, in as much memory as a piece takes.

    Returns:
        The pieces, in order.

    Raises:
        ArtifactError: What stands there is not base64 of the size that the manifest gives.
    """
    decode, done, position = _decoder(), 0, start + engine.location.offset
    text = memoryview(bytearray(min(_PIECE, engine.location.length)))
    for at in range(0, engine.location.length, _PIECE):
        stream.seek(position + at)  # others may have read in between
        piece = text[: min(_PIECE, engine.location.length - at)]
        if stream.readinto(piece) != len(piece):
            raise ArtifactError(engine.name, ["its text is cut short"])
        decoded = _decoded(decode, piece, min(len(piece) // 4 * 3, engine.size - done), engine)
        done += len(decoded)
        yield decoded


def read_head(stream: BufferedReader, start: int, engine: EngineRecord) -> bytes:
    """Read the first bytes of ``engine``, enough for ``read_header``.

    Returns:
        The bytes.

    Raises:
        ArtifactError: What stands there is not base64.
    """
    stream.seek(start + engine.location.offset)
    text = stream.read(min((HEADER_SIZE + 2) // 3 * 4, engine.location.length))
    return bytes(_decoded(_decoder(), memoryview(text), min(len(text) // 4 * 3, engine.size), engine))


def _decoder() -> Callable[[memoryview], bytes | bytearray]:
    """What decodes a piece of base64, and raises ValueError where it is none."""
    try:
        from pybase64 import b64decode_as_bytearray
    except ImportError:  # four times slower, and always there
        return binascii.a2b_base64
    return functools.partial(b64decode_as_bytearray, validate=True)


def _decoded(
    decode: Callable[[memoryview], bytes | bytearray], text: memoryview, size: int, engine: EngineRecord
) -> bytes | bytearray:
    try:
        decoded = decode(text)
    except ValueError as error:  # binascii.Error is one
        raise ArtifactError(engine.name, [f"its text is not base64: {error}"]) from error
    # binascii passes over what is not base64, and stops at padding
    if len(decoded) != size:
        raise ArtifactError(engine.name, ["its text is not base64 of the expected size"])
    return decoded


def _memory(size: int) -> memoryview:
    """Memory that costs nothing until it is written, and goes back to the system when it is let go."""
    if not size:
        return memoryview(b"")
    if sys.platform == "win32":
        return memoryview(mmap.mmap(-1, size))
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # a quarter of the time went into handing out small pages; kernels without large ones refuse
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def read_without_payloads(
    stream: BinaryIO, start: int, size: int, engines: Iterable[tuple[str, EngineRecord]]
) -> Iterator[bytes]:
    """Read a member of ``size`` bytes, with a short token in place of each payload, in pieces of at most a megabyte.

    Args:
        stream: The archive.
        start: Where the member begins.
        size: Its length.
        engines: Token and record of each engine in this member.

    Returns:
        The pieces, in order.
    """
    position = 0
    for token, engine in sorted(engines, key=lambda item: item[1].location.offset):
        yield from _pieces(stream, start + position, engine.location.offset - position)
        yield token.encode()
        position = engine.location.offset + engine.location.length
    yield from _pieces(stream, start + position, size - position)


def _pieces(stream: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    stream.seek(start)
    while length > 0 and (piece := stream.read(min(length, _PIECE))):
        length -= len(piece)
        yield piece
