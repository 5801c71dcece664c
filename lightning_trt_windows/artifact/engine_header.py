"""Read the header of a serialized TensorRT-RTX engine, without any library and without a GPU.

Layout as measured on engines of TensorRT-RTX 1.4 to 1.7 (little endian)::

    0x00  'vtrt'             0x10  u64 total size           0x20  compute-capability mask, one bit a generation
    0x08  u32 sections       0x18  version, four bytes      0x30  u64 CUDA version, as 13040 for 13.4

Bits of the mask: 7.5, 8.0, 8.6, 8.9, 12.0, 12.1 (from 1.5 on); a set bit above the last known generation means GPUs
that do not exist yet. NVIDIA does not document the header; what it says is shown and compared, never trusted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["HEADER_SIZE", "EngineHeader", "read_header"]

HEADER_SIZE = 64
"""Bytes that ``read_header`` needs."""

_GENERATIONS = {(1, 4): ("7.5", "8.0", "8.6", "8.9", "12.0"), (1, 5): ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")}


@dataclass(frozen=True)
class EngineHeader:
    """What the header of an engine says about it."""

    version: tuple[int, int, int, int]
    """TensorRT-RTX version that built it; the same version must load it."""
    compute_capabilities: tuple[str, ...]
    """GPU generations it runs on, ``"newer"`` for those to come."""
    size: int
    """Size of the whole engine, in bytes."""
    cuda: int
    """CUDA version it was built with, as 13040 for 13.4; 0 where it is not said, as since 1.7."""


def read_header(data: bytes | memoryview) -> EngineHeader | None:
    """The header at the start of ``data``, or ``None`` if this is not a TensorRT-RTX engine."""
    head = bytes(data[:HEADER_SIZE])
    if len(head) < HEADER_SIZE or head[:4] != b"vtrt":
        return None
    (size,) = struct.unpack_from("<Q", head, 0x10)
    version = struct.unpack_from("<4B", head, 0x18)
    (mask,) = struct.unpack_from("<I", head, 0x20)
    (cuda,) = struct.unpack_from("<Q", head, 0x30)
    known = _GENERATIONS[max(v for v in _GENERATIONS if v <= (version[0], version[1]) or v == (1, 4))]
    names = [name for bit, name in enumerate(known) if mask >> bit & 1]
    if mask >> len(known):
        names.append("newer")
    return EngineHeader(version, tuple(names), size, cuda)
