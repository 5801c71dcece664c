"""``EpFile``: what is read is what was opened, and whatever is wrong with a zip archive becomes an ArtifactError."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import DATA

from lightning_trt_windows.artifact.artifact import Artifact, open_checked, read_artifact, write_manifest
from lightning_trt_windows.artifact.ep_file import EpFile, zip_members
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.inspection import inspect
from lightning_trt_windows.artifact.outline import read_constant, read_outline
from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.runtime.loading import load_program

MODEL = "archive/models/model.json"
CONFIG = "archive/data/weights/model_weights_config.json"
END = b"PK\x05\x06"
END_64 = b"PK\x06\x06"


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    """A copy of the real sample that a test may break."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    return read_artifact(tmp_path / "tiny.windows.ep")


def vouched(artifact: Artifact, data: bytes) -> Artifact:
    """The artifact with other bytes, whose size and hash its manifest has: only the archive itself tells."""
    artifact.path.write_bytes(data)
    record = dataclasses.replace(artifact.manifest.ep, size=len(data), sha256=sha256_of(artifact.path))
    manifest = dataclasses.replace(artifact.manifest, ep=record)
    write_manifest(artifact.manifest_path, manifest)
    return Artifact(artifact.path, manifest)


def rezipped(artifact: Artifact, change: Callable[[zipfile.ZipFile], None] = lambda archive: None) -> Artifact:
    """The artifact with its archive written anew; ``change`` may tell lies, which go into the archive's directory."""
    with zipfile.ZipFile(artifact.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(artifact.path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        change(archive)
    return vouched(artifact, artifact.path.read_bytes())


def lying(name: str, **said: int) -> Callable[[zipfile.ZipFile], None]:
    """What says something else about a member in the archive's directory than in the member's own header."""

    def change(archive: zipfile.ZipFile) -> None:
        for field, value in said.items():
            setattr(archive.getinfo(name), field, value)

    return change


def not_run(record: Any, plan: memoryview) -> Any:
    """Stands for TensorRT, which needs a GPU to open an engine."""
    return lambda inputs: []


def refused(artifact: Artifact) -> tuple[str, ...]:
    """What is wrong with an artifact, of which no reader takes a byte."""
    with EpFile(artifact.path) as file:
        issues = tuple(file.issues(artifact.manifest))
    assert issues
    with pytest.raises(ArtifactError) as caught, open_checked(artifact):
        pass
    assert caught.value.issues == issues
    assert inspect(artifact.path, check=True).issues == issues
    with pytest.raises(ArtifactError):
        load_program(artifact, torch.device("cpu"), not_run)
    return issues


# what is whole


def test_all_that_is_in_the_sample(tiny: Artifact) -> None:
    """From one open file, in any order: each reader goes to its place."""
    (engine,) = tiny.manifest.engines
    content = tiny.path.read_bytes()
    with zipfile.ZipFile(tiny.path) as archive:
        names, model = archive.namelist(), archive.read(MODEL)
    begin, end = engine.location.offset, engine.location.offset + engine.location.length
    wanted = base64.b64decode(model[begin:end])
    with EpFile(tiny.path) as file:
        assert list(file.issues(tiny.manifest)) == []
        assert list(file.members) == names
        pieces = [bytes(piece) for piece in file.engine_pieces(engine) if file.sha256()]  # moves the file's position
        assert b"".join(pieces) == wanted == bytes(file.engine(engine))
        assert wanted.startswith(file.head(engine))
        assert file.headers([engine])[engine.name].version
        assert b"".join(file.without_payloads(MODEL, [("@", engine)])) == model[:begin] + b"@" + model[end:]
        assert b"".join(file.without_payloads(MODEL, [])) == model
        assert (file.size, file.sha256()) == (len(content), hashlib.sha256(content).hexdigest())
    assert file.stream.closed


@pytest.mark.linux("an open file cannot be replaced on Windows")
def test_what_was_checked_is_what_is_read(tiny: Artifact) -> None:
    """Also when its name is given to another file in between."""
    (engine,) = tiny.manifest.engines
    with open_checked(tiny) as file:
        other = tiny.path.with_name("other")
        other.write_bytes(b"something else")
        other.replace(tiny.path)
        assert hashlib.sha256(file.engine(engine)).hexdigest() == engine.sha256
        assert list(file.issues(tiny.manifest)) == []
    assert "incomplete" in refused(tiny)[0]


def test_loading_opens_the_file_once(tiny: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check, the program and the engines are of one file."""
    opened = []
    original = Path.open

    def counting(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counting)
    load_program(tiny, torch.device("cpu"), not_run)
    assert opened.count(tiny.path) == 1


def test_zip64_is_read(tiny: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """As archives of more than 4 GB have it: every size, every place and the directory's own place in 64 bits."""
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 0)
        artifact = rezipped(tiny)
    assert END_64 in artifact.path.read_bytes()
    (engine,) = artifact.manifest.engines
    with open_checked(artifact) as file:
        assert all(info.extra for info in file.members.values())
        assert hashlib.sha256(file.engine(engine)).hexdigest() == engine.sha256
    assert inspect(artifact.path, check=True).issues == ()
    assert read_outline(artifact) == read_outline(read_artifact(DATA / "tiny.windows.ep"))


# what is damaged


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99, 0.999])
def test_a_truncated_archive(tiny: Artifact, share: float) -> None:
    """The directory stands at the end, so that without an end nothing is there."""
    data = tiny.path.read_bytes()
    (issue,) = refused(vouched(tiny, data[: int(share * len(data))]))
    assert issue.startswith("is not a readable zip archive, which an .ep is")


def test_an_archive_without_its_beginning(tiny: Artifact) -> None:
    """The places in the directory are then before the file's first byte."""
    issues = refused(vouched(tiny, tiny.path.read_bytes()[1000:]))
    assert f"member {CONFIG!r} would lie outside of the file" in issues[0]


def test_an_archive_behind_something_else(tiny: Artifact) -> None:
    """Is the same archive, as for every reader of zips: self-extracting ones begin so."""
    (engine,) = tiny.manifest.engines
    artifact = vouched(tiny, b"#!/bin/sh\n" + tiny.path.read_bytes())
    with open_checked(artifact) as file:
        assert hashlib.sha256(file.engine(engine)).hexdigest() == engine.sha256


def test_a_wrong_checksum(tiny: Artifact) -> None:
    """Of a member that is read whole. That of the graph need not be looked at: the hash of the file was."""
    artifact = rezipped(tiny, lying(CONFIG, CRC=1))
    with pytest.raises(ArtifactError, match="Bad CRC-32"):
        load_program(artifact, torch.device("cpu"), not_run)
    with pytest.raises(ArtifactError, match="Bad CRC-32"):
        read_constant(artifact, "weight")


@pytest.mark.parametrize(
    "size", [10**6, 2**32 - 2, 2**32, 2**40, 2**62, 2**63 - 1, 2**64 - 1], ids=lambda size: f"{size:.0e}"
)
@pytest.mark.parametrize("field", ["file_size", "compress_size", "header_offset"])
def test_members_that_would_be_larger_than_the_file(tiny: Artifact, field: str, size: int) -> None:
    """Nobody asks the system for as much memory. From 4 GB on the lie stands in 64 bits."""
    artifact = rezipped(tiny, lying(MODEL, **{field: size}))
    assert refused(artifact) == (f"member {MODEL!r} would lie outside of the file",)


def test_a_member_that_says_to_be_smaller(tiny: Artifact) -> None:
    """Than what the manifest has in it."""
    (engine,) = tiny.manifest.engines
    end = engine.location.offset + engine.location.length
    artifact = rezipped(tiny, lying(MODEL, file_size=end - 1, compress_size=end - 1))
    (issue,) = refused(artifact)
    assert issue == f"engine {engine.name}: should end at byte {end} of {MODEL!r}, which has {end - 1}"


def test_a_directory_that_points_elsewhere(tiny: Artifact) -> None:
    """Where no member begins, or where another one does."""
    (engine,) = tiny.manifest.engines
    for place in (3, 0):
        artifact = rezipped(vouched(tiny, (DATA / "tiny.windows.ep").read_bytes()), lying(MODEL, header_offset=place))
        with EpFile(artifact.path) as file:
            assert list(file.issues(artifact.manifest)) == []
            for read in (file.head, file.engine, lambda engine: list(file.engine_pieces(engine))):
                with pytest.raises(ArtifactError, match=f"engine {engine.name}: is not an uncompressed member where"):
                    read(engine)
        with pytest.raises(ArtifactError, match="is not an uncompressed member where"):
            load_program(artifact, torch.device("cpu"), not_run)
        assert any("is not an uncompressed member where" in issue for issue in inspect(artifact.path).issues)


def test_members_of_one_name(tiny: Artifact) -> None:
    """Two readers would take different ones."""

    def twice(archive: zipfile.ZipFile) -> None:
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(MODEL, b"{}")

    assert refused(rezipped(tiny, twice)) == ("has two members of the same name",)


def test_a_compressed_member(tiny: Artifact) -> None:
    """A few kilobytes of zeros would become gigabytes, wherever they are."""

    def packed(archive: zipfile.ZipFile) -> None:
        archive.writestr("archive/data/weights/weight_0", bytes(10**7), zipfile.ZIP_DEFLATED)

    (issue,) = refused(rezipped(tiny, packed))
    assert issue == "member 'archive/data/weights/weight_0' is compressed, which no member of an .ep is"


def test_an_unknown_compression(tiny: Artifact) -> None:
    """Said in the directory."""
    issues = refused(rezipped(tiny, lying(MODEL, compress_type=99)))
    assert issues[0] == f"member {MODEL!r} is compressed, which no member of an .ep is"


@pytest.mark.parametrize("value", [1, 2**31, 2**63 - 1, 2**64 - 1], ids=lambda value: f"{value:.0e}")
@pytest.mark.parametrize(
    "at", [4, 16, 24, 32, 40, 48], ids=["record", "disks", "entries here", "entries", "size", "offset"]
)
def test_a_zip64_directory_that_lies(tiny: Artifact, monkeypatch: pytest.MonkeyPatch, at: int, value: int) -> None:
    """About its own size, place or number of entries: an error of ours, or the same members as before."""
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 0)
        data = bytearray(rezipped(tiny).path.read_bytes())
    struct.pack_into("<Q", data, data.rindex(END_64) + at, value)
    artifact = vouched(tiny, bytes(data))
    with EpFile(artifact.path) as file:
        issues = list(file.issues(artifact.manifest))
    if at in (40, 48):
        assert refused(artifact) == tuple(issues)
    elif not issues:
        assert inspect(artifact.path, check=True).issues == ()


def test_damage_of_any_byte_of_the_directory(tiny: Artifact) -> None:
    """Which the manifest vouches for: it is refused, or what is read of it fails by an error of ours."""
    artifact = rezipped(tiny)
    data = artifact.path.read_bytes()
    (engine,) = tiny.manifest.engines
    wanted = engine.sha256
    for position in range(data.index(b"PK\x01\x02", len(data) - 2000), len(data)):
        for flip in (0xFF, 0x80, 0x01):
            damaged = bytearray(data)
            damaged[position] ^= flip
            artifact.path.write_bytes(damaged)
            with EpFile(artifact.path) as file:
                if list(file.issues(artifact.manifest, content=False)):
                    continue
                with contextlib.suppress(ArtifactError):
                    assert hashlib.sha256(file.engine(engine)).hexdigest() == wanted


# an archive on its own


def test_the_directory_of_any_zip(tiny: Artifact, tmp_path: Path) -> None:
    """As bundles are read; what is not one is named."""
    with zipfile.ZipFile(tiny.path) as archive:
        assert [info.filename for info in zip_members(tiny.path)] == archive.namelist()
    with pytest.raises(ArtifactError, match=r"no\.zip: does not exist"):
        zip_members(tmp_path / "no.zip")
    with pytest.raises(ArtifactError, match=r"tiny\.windows\.json: is not a readable zip archive"):
        zip_members(tiny.manifest_path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        zip_members(tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Callers say what it means."""
    with pytest.raises(FileNotFoundError):
        EpFile(tmp_path / "no.ep")
