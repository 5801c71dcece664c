"""Bundles from elsewhere: nothing in a zip is believed before it has been looked at."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.artifacts import put

from lightning_trt_windows import collect
from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.bundle.layout import key_of, safe_issue
from lightning_trt_windows.bundle.reading import extract_bundle, inspect_bundle
from lightning_trt_windows.errors import ArtifactError, OutputError, UnsupportedFormatError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A real one."""
    put(tmp_path / "run", golden=b"recorded", score=0.5)
    return collect(tmp_path / "run", tmp_path / "b.zip").path


def rebuilt(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The bundle with other files in it."""
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    out = bundle.with_name("changed.zip")
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out


NASTY = [
    "../evil.txt",
    "artifacts/../../evil.txt",
    "/etc/evil",
    "C:/evil",
    "c:evil",
    "artifacts\\..\\evil",
    "\\\\server\\share\\evil",
    "artifacts/CON",
    "nul.json",
    "artifacts/com1.ep",
    "a/./b",
    "a//b",
    "trailing.",
    "trailing ",
    "stream.txt:hidden",
    "bell\x07",
    "",
]


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_names_that_leave_the_folder(bundle: Path, tmp_path: Path, name: str) -> None:
    """Or that Windows reads otherwise: nothing is written, and the name is in the message."""
    assert safe_issue(name)
    if not name:
        return  # zipfile itself writes none
    changed = rebuilt(bundle, lambda files: files.update({name: b"evil"}))
    for read in (inspect_bundle, lambda path: extract_bundle(path, tmp_path / "unpacked")):
        with pytest.raises(ArtifactError, match="the name "):
            read(changed)
    assert not (tmp_path / "unpacked").exists()


def test_links_are_refused(bundle: Path, tmp_path: Path) -> None:
    """A zip can hold symbolic links."""
    link = zipfile.ZipInfo("artifacts/link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArtifactError, match="is a link"):
        extract_bundle(bundle, tmp_path / "unpacked")


def test_what_grows_when_it_is_unpacked_is_refused(bundle: Path) -> None:
    """Nothing in a bundle is compressed, so nothing in it can be a bomb."""
    with zipfile.ZipFile(bundle, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"0" * 1_000_000)
    with pytest.raises(ArtifactError, match="'zeros' is compressed"):
        inspect_bundle(bundle)


@pytest.mark.parametrize(
    "other", ["ARTIFACTS/tiny.windows.ep", "artifacts/tiny.windows.ep", "artifacts/TINY.windows.EP"]
)
def test_two_names_for_one_file(bundle: Path, other: str) -> None:
    """The second would replace the first, after the first had been checked."""
    same = other == "artifacts/tiny.windows.ep"
    with pytest.warns(UserWarning) if same else contextlib.nullcontext(), zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(other, b"evil")  # zipfile warns of the same name
    with pytest.raises(ArtifactError, match="are one file on Windows"):
        inspect_bundle(bundle)
    assert key_of("É.ep") == key_of("e\u0301.EP")


def test_a_whole_bundle(bundle: Path, tmp_path: Path) -> None:
    """Is described without unpacking, and unpacked into a new folder only."""
    found = inspect_bundle(bundle, check=True)
    assert found.issues == ()
    (item,) = found.artifacts
    assert (item.ep, item.roles) == ("artifacts/tiny.windows.ep", ("best by val_acc", "last"))
    assert json.loads(json.dumps(found.to_dict()))["artifacts"][0]["manifest"]["ep"]["file"] == "tiny.windows.ep"
    (ep,) = extract_bundle(bundle, tmp_path / "unpacked")
    assert read_artifact(ep).manifest == item.manifest
    with pytest.raises(OutputError, match="is not empty"):
        extract_bundle(bundle, tmp_path / "unpacked")


def test_files_that_are_not_those_of_the_list(bundle: Path, tmp_path: Path) -> None:
    """In both directions, all at once; what is unpacked before the wrong file is the right one."""

    def change(files: dict[str, bytes]) -> None:
        del files["run.py"]
        files["surplus.py"] = b"import os"
        files["artifacts/tiny.windows.ep"] = files["artifacts/tiny.windows.ep"][:-1] + b"x"
        files["README.md"] += b"more"

    changed = rebuilt(bundle, change)
    issues = inspect_bundle(changed, check=True).issues
    assert [issue.partition(" ")[0] for issue in issues] == [
        "README.md",
        "run.py",
        "surplus.py",
        "README.md",
        "artifacts/tiny.windows.ep",
    ]
    with pytest.raises(ArtifactError, match=r"run\.py is missing"):
        extract_bundle(changed, tmp_path / "unpacked")

    def same_size(files: dict[str, bytes]) -> None:
        files["run.py"] = files["run.py"].replace(b"import time", b"import evil")

    with pytest.raises(ArtifactError, match=r"run\.py is not the file that went into the bundle"):
        extract_bundle(rebuilt(bundle, same_size), tmp_path / "other")
    assert not (tmp_path / "other/run.py").exists()


def test_a_manifest_that_speaks_of_another_file(bundle: Path) -> None:
    """Hash and name are those of the files beside it."""

    def change(files: dict[str, bytes]) -> None:
        data = json.loads(files["artifacts/tiny.windows.json"])
        data["ep"]["sha256"] = "0" * 64
        files["artifacts/tiny.windows.json"] = json.dumps(data).encode()

    issues = inspect_bundle(rebuilt(bundle, change)).issues
    assert "artifacts/tiny.windows.ep is not the file that the manifest beside it describes" in issues


def test_what_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    """Each says why, as an error of ours."""
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ArtifactError, match="is not a readable zip archive"):
        inspect_bundle(tmp_path / "x.zip")
    with pytest.raises(ArtifactError, match="does not exist"):
        inspect_bundle(tmp_path / "no.zip")
    with pytest.raises(ArtifactError, match=r"has no bundle\.json"):
        inspect_bundle(rebuilt(bundle, lambda files: files.pop("bundle.json")))

    def replaced(**changes: object) -> Path:
        def change(files: dict[str, bytes]) -> None:
            files["bundle.json"] = json.dumps({**json.loads(files["bundle.json"]), **changes}).encode()

        return rebuilt(bundle, change)

    with pytest.raises(UnsupportedFormatError, match="its format is 2"):
        inspect_bundle(replaced(bundle_format=2))
    with pytest.raises(ArtifactError, match="artifacts: expected a list"):
        inspect_bundle(replaced(artifacts=7))
    with pytest.raises(ArtifactError, match=r"artifacts/none\.ep is not listed"):
        inspect_bundle(replaced(artifacts=[{"ep": "artifacts/none.ep", "manifest": "run.py", "roles": []}]))


def test_bytes_that_changed_on_the_way(bundle: Path) -> None:
    """Any byte of the zip: found by the check, or no file's at all; never another exception than ours."""
    data = bundle.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 150)):
        changed = bytearray(data)
        changed[position] ^= 0x41
        path = bundle.with_name("flipped.zip")
        path.write_bytes(changed)
        try:
            found = inspect_bundle(path, check=True)
        except ArtifactError:
            continue
        assert found.issues or position > len(data) - 3000 or _outside_content(data, position), position


def _outside_content(data: bytes, position: int) -> bool:
    """Whether a byte belongs to a member's own header, which nobody reads but for its length."""
    start = data.rfind(b"PK\x03\x04", 0, position + 1)
    name = int.from_bytes(data[start + 26 : start + 28], "little")
    return position < start + 30 + name


def test_any_bundle_is_read_or_refused(bundle: Path, tmp_path: Path) -> None:
    """Bytes, names and lists changed at random: a typed error or a result, and never a file outside of the folder.

    ``make fuzz`` sets how many.
    """
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".ep")}
    files["artifacts/tiny.windows.ep"] = b"engine" * 50
    whole = json.loads(files["bundle.json"])
    area = tmp_path / "area"
    read = 0
    for seed in range(int(os.environ.get("FUZZ_EXAMPLES", "600"))):
        chance = random.Random(seed)
        path = tmp_path / "fuzzed.zip"
        path.write_bytes(_mutated(files, whole, chance))
        with contextlib.suppress(ArtifactError):
            inspect_bundle(path, check=True)
            read += 1
        with contextlib.suppress(ArtifactError, OutputError):
            extract_bundle(path, area / "inside")
        assert [p.name for p in area.iterdir()] in ([], ["inside"]) if area.exists() else True
        assert not any(p.is_symlink() for p in area.rglob("*"))
        shutil.rmtree(area, ignore_errors=True)
    assert read


def _mutated(files: dict[str, bytes], whole: dict[str, Any], chance: random.Random) -> bytes:
    """A zip like the bundle with ``files``, with something in it that should not be."""
    listed = copy.deepcopy(whole)
    changed = dict(files)
    for _ in range(chance.randint(1, 3)):
        kind = chance.randrange(5)
        name = chance.choice(sorted(changed))
        if kind == 0:
            changed[chance.choice(["../up", "/abs", "C:/x", "a/../../b", "nul", *NASTY[:-1], name.upper()])] = b"x"
        elif kind == 1:
            changed[name] = bytes(chance.randrange(256) for _ in range(chance.randrange(99)))
        elif kind == 2 and len(changed) > 1:
            del changed[name]
        elif kind == 3:
            value: Any = chance.choice([None, -1, 2**70, "", "../x", [], {}, [[]], True, 1.5, "\ud800"])
            listed[chance.choice(["bundle_format", "artifacts", "files", "surplus"])] = value
        else:
            key = chance.choice(["..", "/x", name, "aux"])
            listed["files"] = {**whole["files"], key: chance.choice([None, {}, {"size": -1, "sha256": "x"}])}
    for name, data in changed.items():
        if isinstance(listed.get("files"), dict) and chance.random() < 0.8:  # so that what lies behind the hash is met
            listed["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if chance.random() < 0.9:
        changed["bundle.json"] = json.dumps(listed).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in changed.items():
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "")), data)
    data = bytearray(stream.getvalue())
    for _ in range(chance.choice([0, 0, 1, 5])):
        position = chance.randrange(len(data))
        data[position : position + chance.randrange(3)] = bytes(
            chance.randrange(256) for _ in range(chance.randrange(3))
        )
    return bytes(data)
