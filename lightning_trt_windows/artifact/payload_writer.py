"""The ``.ep`` as a zip archive: engine payloads join the saved program as a stream. Standard library only.

``torch.export.save`` writes an uncompressed zip whose ``models/<name>.json`` holds the graph, engines as base64 text in
it. A payload inside the graph would be printed, compiled, parsed and encoded several times on the way there; so the
graph carries a token, and the text takes its place here, chunk by chunk.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import posixpath
import shutil
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

from lightning_trt_windows.artifact.manifest import PayloadLocation
from lightning_trt_windows.errors import ArtifactError

__all__ = ["Joined", "join_payloads"]

_CHUNK = 3 << 16
"""Bytes encoded in one go; a multiple of 3, so that the base64 of the chunks is the base64 of the whole. Encoding holds
Python's lock, so large chunks would keep the writing thread waiting."""

_BLOCK = 8 * _CHUNK
"""Bytes whose text is written in one go: few and long stretches of work, which need the lock only in between."""

_BLOCKS_AHEAD = 2
"""Blocks encoded before they are asked for; this and the block size are the memory that writing needs."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The zip format's first moment: the same program gives the same bytes."""


class Writable(Protocol):
    """What the archive is written to; it need not be seekable."""

    def write(self, data: bytes, /) -> int:
        """Write all of ``data``."""


@dataclass(frozen=True)
class Joined:
    """One payload in the archive."""

    location: PayloadLocation
    sha256: str
    """SHA-256 of the payload itself, in hexadecimal."""


def join_payloads(saved: IO[bytes], out: Writable, payloads: Mapping[str, memoryview]) -> dict[str, Joined]:
    """Copy the archive ``saved`` to ``out``, each token replaced by the base64 of its payload.

    Everything on the CPU is relabelled ``cuda:0`` on the way: fallback operators were traced on a machine that
    may have no GPU, run on one that has, and upstream's loader moves neither their weights nor their ``device=``
    arguments.

    Args:
        saved: An archive as ``torch.export.save`` writes it; seekable.
        out: Where to write.
        payloads: Token to payload. The payloads are read once and not copied.

    Returns:
        Where each payload lies and what it is, by token.

    Raises:
        ArtifactError: A token that does not stand in the archive exactly once.
    """
    joined: dict[str, Joined] = {}
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(cast(IO[bytes], out), "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            entry = zipfile.ZipInfo(info.filename, _EPOCH)
            if not info.filename.endswith(".json"):
                with source.open(info) as member, target.open(entry, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(member, copy, 1 << 20)
                continue
            text = _relabelled(source.read(info)) if _describes_tensors(info.filename) else source.read(info)
            with target.open(entry, "w", force_zip64=True) as member_out:
                offset = 0
                for part in _parts(text, payloads):
                    if isinstance(part, bytes):
                        member_out.write(part)
                        offset += len(part)
                        continue
                    if part in joined:
                        raise ArtifactError(info.filename, [f"the engine {part} stands in the archive twice"])
                    length, digest = 0, hashlib.sha256()
                    for text_block in _encoded(payloads[part], digest):
                        length += member_out.write(text_block)
                    location = PayloadLocation(member=info.filename, offset=offset, length=length)
                    joined[part] = Joined(location, digest.hexdigest())
                    offset += length
    missing = sorted(set(payloads) - set(joined))
    if missing:
        raise ArtifactError("the saved program", [f"the engine {token} is not in it" for token in missing])
    return joined


def _parts(text: bytes, tokens: Mapping[str, memoryview]) -> Iterator[bytes | str]:
    """Split ``text`` at the tokens: bytes to copy, and tokens to replace."""
    found = sorted((text.find(token.encode()), token) for token in tokens if token.encode() in text)
    position = 0
    for index, token in found:
        yield text[position:index]
        yield token
        position = index + len(token.encode())
    yield text[position:]


def _encoded(payload: memoryview, digest: hashlib._Hash) -> Iterator[bytes]:
    """The base64 of ``payload``, block by block; ``digest`` receives the payload itself.

    Encoding, two hashes, zip's checksum and the write are a pass over the engine each, and they are what saving takes.
    Encoding and the engine's hash run in a thread of their own, ahead of the caller, which does the others.
    """
    view = payload.cast("B")

    def encode(start: int) -> bytes:
        texts = []
        for chunk in _pieces(view[start : start + _BLOCK], _CHUNK):
            digest.update(chunk)
            texts.append(binascii.b2a_base64(chunk, newline=False))
        return b"".join(texts)

    with ThreadPoolExecutor(1) as worker:
        ahead: deque[Future[bytes]] = deque()
        for start in range(0, len(view), _BLOCK):
            ahead.append(worker.submit(encode, start))
            if len(ahead) > _BLOCKS_AHEAD:
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()


def _pieces(view: memoryview, size: int) -> Iterator[memoryview]:
    for start in range(0, len(view), size):
        yield view[start : start + size]


def _describes_tensors(name: str) -> bool:
    return posixpath.basename(posixpath.dirname(name)) in ("models", "weights", "constants")


def _relabelled(text: bytes) -> bytes:
    """JSON ``text`` with every ``{"type": "cpu", "index": null}`` turned into CUDA device 0."""
    document = json.loads(text)
    _relabel(document)
    return json.dumps(document).encode()


def _relabel(value: Any) -> None:
    # a list of work instead of recursion: graphs nest deeper than Python's stack for a few models
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if item.get("type") == "cpu" and set(item) == {"type", "index"}:
                item.update(type="cuda", index=0)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
