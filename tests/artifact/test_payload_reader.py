"""Payloads out of the middle of an archive, decoded without a copy of the text."""

from __future__ import annotations

import base64
import random
import sys
import zipfile
from pathlib import Path

import pytest

from lightning_trt_windows.artifact import payload_reader as payload
from lightning_trt_windows.artifact.manifest import EngineRecord, PayloadLocation
from lightning_trt_windows.artifact.payload_reader import (
    decoded_pieces,
    member_start,
    read_head,
    read_payload,
    read_without_payloads,
)
from lightning_trt_windows.errors import ArtifactError

PIECE = payload._PIECE
SIZES = [0, 1, 2, 3, 23, 1000, PIECE // 4 * 3 - 1, PIECE // 4 * 3, PIECE // 4 * 3 + 1, 3 * PIECE + 7]


@pytest.fixture(params=["pybase64", "binascii"], autouse=True)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the library that decodes fast, and on a machine that lacks it."""
    if request.param == "binascii":
        monkeypatch.setitem(sys.modules, "pybase64", None)
    else:
        pytest.importorskip("pybase64")


def archived(
    folder: Path, *contents: bytes, damage: tuple[int, bytes] | None = None
) -> tuple[Path, list[EngineRecord]]:
    """An archive with a member ``<0><payload><1><payload>…<end>``, and the records of the payloads."""
    text, records = b"", []
    for number, content in enumerate(contents):
        encoded = base64.b64encode(content)
        text += b"<%d>" % number
        location = PayloadLocation(member="archive/m.json", offset=len(text), length=len(encoded))
        records.append(
            EngineRecord(
                name=f"e{number}", size=len(content), sha256="0" * 64, inputs=(), outputs=(), location=location
            )
        )
        text += encoded
    text += b"<end>"
    if damage is not None:
        at, bad = damage
        at += records[0].location.offset
        text = text[:at] + bad + text[at + len(bad) :]
    path = folder / "a.ep"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/other", b"x" * 100)
        archive.writestr("archive/m.json", text)
    return path, records


def start_in(path: Path) -> int:
    """Where the member begins."""
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        return member_start(stream, archive.getinfo("archive/m.json"))


@pytest.mark.parametrize("size", SIZES)
def test_payloads_of_every_length(tmp_path: Path, size: int) -> None:
    """With and without padding, below, at and above the size of a piece."""
    content = random.Random(size).randbytes(size)
    path, records = archived(tmp_path, b"abc", content, b"tail")
    start = start_in(path)
    with path.open("rb") as stream:
        assert [bytes(read_payload(stream, start, record)) for record in records] == [b"abc", content, b"tail"]
        assert [b"".join(decoded_pieces(stream, start, record)) for record in records] == [b"abc", content, b"tail"]


def test_the_rest_has_tokens(tmp_path: Path) -> None:
    """What stands between the payloads is read, the payloads are not."""
    path, records = archived(tmp_path, b"first engine", b"second one")
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        info = archive.getinfo("archive/m.json")
        parts = read_without_payloads(
            stream, start_in(path), info.file_size, [("@1@", records[1]), ("@0@", records[0])]
        )
        assert b"".join(parts) == b"<0>@0@<1>@1@<end>"


def test_the_head_of_an_engine(tmp_path: Path) -> None:
    """Enough for the header, also where the engine is shorter."""
    content = bytes(range(200))
    path, records = archived(tmp_path, content, b"short")
    with path.open("rb") as stream:
        start = start_in(path)
        assert read_head(stream, start, records[0])[:64] == content[:64]
        assert read_head(stream, start, records[1]) == b"short"


@pytest.mark.parametrize("at", [0, 1, 2, 3, 31, 1000, 3 * PIECE + 17])
@pytest.mark.parametrize("bad", [b"=", b"\n", b"\xff", b"-"])
def test_text_that_is_not_base64(tmp_path: Path, at: int, bad: bytes) -> None:
    """At any place, in what is decoded in bulk and at the end."""
    path, (record,) = archived(tmp_path, bytes(3 * PIECE), damage=(at, bad))
    with path.open("rb") as stream, pytest.raises(ArtifactError, match="e0: its text is not base64"):
        read_payload(stream, start_in(path), record)


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    """As after an interrupted copy."""
    path, (record,) = archived(tmp_path, bytes(1000))
    start = start_in(path)
    path.write_bytes(path.read_bytes()[: start + 500])
    with path.open("rb") as stream, pytest.raises(ArtifactError, match="cut short"):
        read_payload(stream, start, record)


def test_a_directory_that_lies(tmp_path: Path) -> None:
    """The archive's directory points at something else than the member."""
    path, _ = archived(tmp_path, b"abc")
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        info = archive.getinfo("archive/m.json")
        info.header_offset += 1
        with pytest.raises(ArtifactError, match="is not an uncompressed member"):
            member_start(stream, info)
