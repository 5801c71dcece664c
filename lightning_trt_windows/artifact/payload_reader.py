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
from pathlib import Path
from typing import BinaryIO

from lightning_trt_windows.artifact.engine_header import HEADER_SIZE
from lightning_trt_windows.artifact.manifest import EngineRecord
from lightning_trt_windows.errors import ArtifactError

__all__ = ["member_start", "read_head", "read_payload", "read_without_payloads"]

_LOCAL_HEADER = 30
"""Bytes of a zip member's own header, before its name and its extra field."""
_PIECE = 1 << 20
"""Characters decoded at a time: a multiple of 4, and few enough to stay in the processor's cache."""


def member_start(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Byte of the file at which the content of an uncompressed member begins.

    Raises:
        ArtifactError: The archive's directory points at something that is not this member.
    """
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04" or info.compress_type != zipfile.ZIP_STORED:
        raise ArtifactError(info.filename, ["is not an uncompressed member where the archive's directory says"])
    name, extra = struct.unpack_from("<2H", header, 26)
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)


def read_payload(path: Path, start: int, engine: EngineRecord) -> memoryview:
    """The bytes of ``engine``; ``start`` is where its member begins in the file at ``path``.

    Raises:
        ArtifactError: What stands there is not base64 of the size that the manifest gives.
    """
    decode, plan, done = _decoder(), _memory(engine.size), 0
    text = memoryview(bytearray(min(_PIECE, engine.location.length)))
    try:
        with path.open("rb", buffering=0) as stream:
            stream.seek(start + engine.location.offset)
            for at in range(0, engine.location.length, _PIECE):
                piece = text[: min(_PIECE, engine.location.length - at)]
                if stream.readinto(piece) != len(piece):
                    raise ValueError("cut short")
                decoded = decode(piece)
                # binascii passes over what is not base64, and stops at padding
                if len(decoded) != min(len(piece) // 4 * 3, engine.size - done):
                    raise ValueError("not base64 of the expected size")
                plan[done : done + len(decoded)] = decoded
                done += len(decoded)
    except ValueError as error:
        raise ArtifactError(engine.name, [f"its text is {_reason(error)}"]) from error
    return plan


def _decoder() -> Callable[[memoryview], bytes | bytearray]:
    """What decodes a piece of base64, and raises ValueError where it is none."""
    try:
        from pybase64 import b64decode_as_bytearray
    except ImportError:  # four times slower, and always there
        return binascii.a2b_base64
    return functools.partial(b64decode_as_bytearray, validate=True)


def _reason(error: ValueError) -> str:
    return f"not base64: {error}" if isinstance(error, binascii.Error) else str(error)


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


def read_head(stream: BinaryIO, start: int, engine: EngineRecord) -> bytes:
    """The first bytes of ``engine``, enough for ``read_header``."""
    stream.seek(start + engine.location.offset)
    text = stream.read(min((HEADER_SIZE + 2) // 3 * 4, engine.location.length))
    try:
        return binascii.a2b_base64(text)
    except binascii.Error as error:
        raise ArtifactError(engine.name, [f"its text is not base64: {error}"]) from error


def read_without_payloads(
    stream: BinaryIO, start: int, size: int, engines: Iterable[tuple[str, EngineRecord]]
) -> Iterator[bytes]:
    """A member of ``size`` bytes, with a short token in place of each payload.

    Args:
        stream: The archive.
        start: Where the member begins.
        size: Its length.
        engines: Token and record of each engine in this member.
    """
    position = 0
    for token, engine in sorted(engines, key=lambda item: item[1].location.offset):
        stream.seek(start + position)
        yield stream.read(engine.location.offset - position)
        yield token.encode()
        position = engine.location.offset + engine.location.length
    stream.seek(start + position)
    yield stream.read(size - position)
