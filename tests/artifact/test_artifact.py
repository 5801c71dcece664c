"""Files on disk: names, atomic writing, reading, integrity."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import DATA

from lightning_trt_windows.artifact.artifact import (
    Artifact,
    ArtifactPaths,
    check_artifact,
    read_artifact,
    remove_manifest,
    write_manifest,
)
from lightning_trt_windows.artifact.files import atomic_file, readable_size, sha256_of
from lightning_trt_windows.artifact.windows_names import illegal_on_windows, windows_name
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, OutputError


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    """A copy of the real sample that a test may break."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    return read_artifact(tmp_path / "tiny.windows.ep")


def names_in(directory: Path) -> list[str]:
    """What is left there."""
    return sorted(path.name for path in directory.iterdir())


def relisted(artifact: Artifact, **location: object) -> Artifact:
    """The artifact with its engine's payload said to be elsewhere."""
    (engine,) = artifact.manifest.engines
    moved = dataclasses.replace(engine, location=dataclasses.replace(engine.location, **location))  # type: ignore[arg-type]
    return Artifact(artifact.path, dataclasses.replace(artifact.manifest, engines=(moved,)))


def rezipped(artifact: Artifact, change: Callable[[dict[str, bytes]], None], compression: int = 0) -> Artifact:
    """The artifact with other members, and a manifest that has the right size and hash of it."""
    with zipfile.ZipFile(artifact.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(artifact.path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    size, digest = artifact.path.stat().st_size, sha256_of(artifact.path)
    record = dataclasses.replace(artifact.manifest.ep, size=size, sha256=digest)
    return Artifact(artifact.path, dataclasses.replace(artifact.manifest, ep=record))


# names


def test_an_artifact_lies_beside_its_checkpoint() -> None:
    """Under the checkpoint's name."""
    paths = ArtifactPaths.beside("/runs/epoch=3-step=99.ckpt")
    assert paths.ep == Path("/runs/epoch=3-step=99.windows.ep")
    assert paths.manifest == Path("/runs/epoch=3-step=99.windows.json")
    assert paths.golden == Path("/runs/epoch=3-step=99.windows.golden.safetensors")


def test_a_dot_in_the_name_is_no_suffix() -> None:
    """Lightning writes metrics into names."""
    assert ArtifactPaths.beside("val_loss=0.25.ckpt").ep.name == "val_loss=0.25.windows.ep"


AWKWARD = [
    *(f"epoch{c}3.ckpt" for c in '<>:"\\|?*\n\x00\x7f\udc80'),
    *("CON.ckpt", "nul.ckpt", "aux.epoch=3.ckpt", "COM1.ckpt", "lpt9.v2.ckpt", "prn .ckpt", "COM².ckpt"),
    *("a..ckpt", "a .ckpt", ".ckpt", "...ckpt", "x" * 400 + ".ckpt", "é" * 200 + ".ckpt"),
    *("last", "model.pt", "LAST.CKPT"),
]


@pytest.mark.parametrize("name", AWKWARD, ids=ascii)
def test_awkward_checkpoints_get_legal_names(name: str) -> None:
    """Which fit a file system and tell where they come from."""
    paths = ArtifactPaths.beside(f"/runs/{name}")
    folder = Path(f"/runs/{name}").parent  # a backslash separates folders on Windows
    for path in (paths.ep, paths.manifest, paths.golden):
        assert path.parent == folder
        assert illegal_on_windows(path.name) is None
        assert len(path.name.encode()) < 200


def test_two_checkpoints_never_share_an_artifact() -> None:
    """Even where all that tells them apart is illegal on Windows, or cut off."""
    names = [*AWKWARD, *("a.ckpt", "a", "_.ckpt", "a_.ckpt", "a?.ckpt", "a*.ckpt", "x" * 401 + ".ckpt", "epoch_3.ckpt")]
    assert len({ArtifactPaths.beside(name).ep for name in names}) == len(names)


def test_a_legal_name_stays_as_it_is() -> None:
    """Other names become legal ones, each its own."""
    assert windows_name("epoch=3.ckpt") == "epoch=3.ckpt"
    assert illegal_on_windows(windows_name("a:b.ckpt")) is None
    assert windows_name("a:b.ckpt") != windows_name("a?b.ckpt")
    assert illegal_on_windows(windows_name("é" * 200)) is None


@pytest.mark.parametrize("name", ["m.windows.ep", "m.windows.json"])
def test_either_file_names_the_artifact(name: str) -> None:
    """Whichever the user has at hand."""
    assert ArtifactPaths.of(f"d/{name}") == ArtifactPaths.of("d/m.windows.ep")


def test_a_destination_need_not_say_windows() -> None:
    """The user's name is the user's choice."""
    assert ArtifactPaths.of("d/m.ep").manifest == Path("d/m.json")


@pytest.mark.parametrize("name", ["m.pt2", "m", ".ep", "", "..", "nul.ep", "m?.json"])
def test_other_names_are_refused(name: str) -> None:
    """Before anything is computed."""
    with pytest.raises(ConfigurationError):
        ArtifactPaths.of(name)


@pytest.mark.linux("there it is a file of drive A")
def test_a_colon_is_refused() -> None:
    """No file on Windows can have it in its name."""
    with pytest.raises(ConfigurationError):
        ArtifactPaths.of("a:b.ep")


def test_a_checkpoint_is_not_an_artifact() -> None:
    """The message says which file would be."""
    with pytest.raises(ConfigurationError, match=r"perhaps last\.windows\.ep"):
        ArtifactPaths.of("last.ckpt")


# writing


def test_a_file_appears_whole_with_its_hash(tmp_path: Path) -> None:
    """Nothing stands under its name before the end; nothing else stands there after."""
    path = tmp_path / "m.ep"
    with atomic_file(path) as file:
        file.write(b"abc")
        file.write(memoryview(bytearray(b"de")))
        assert not path.exists()
        assert file.size == 5
    assert path.read_bytes() == b"abcde"
    assert file.sha256 == hashlib.sha256(b"abcde").hexdigest() == sha256_of(path)
    assert names_in(tmp_path) == ["m.ep"]


@pytest.mark.linux("umask")
def test_a_file_can_be_read_by_those_whom_the_umask_lets(tmp_path: Path) -> None:
    """Others in the team load the artifact too."""
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "m.ep") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.ep").stat().st_mode) == 0o640


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    """The failure itself passes through."""
    path = tmp_path / "m.ep"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise failure

    with pytest.raises(failure):
        fail()
    assert names_in(tmp_path) == ["m.ep"]
    assert path.read_bytes() == b"old"


@pytest.mark.linux("SIGKILL")
def test_a_killed_process_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    """Only a temporary file that can be told by its name."""
    code = (
        "import os, signal, sys\n"
        "from lightning_trt_windows.artifact.files import atomic_file\n"
        "with atomic_file(sys.argv[1]) as file:\n"
        "    file.write(bytes(1000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.ep")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = names_in(tmp_path)
    assert left.startswith(".lightning-trt-windows-")


def test_a_zip_archive_streams_through(tmp_path: Path) -> None:
    """Sizes follow the data, as in the archives that torch writes."""
    with atomic_file(tmp_path / "m.ep") as file, zipfile.ZipFile(file, "w") as archive:  # type: ignore[call-overload]
        archive.writestr("a/b", b"payload")
    with zipfile.ZipFile(tmp_path / "m.ep") as archive:
        assert archive.testzip() is None
        assert archive.read("a/b") == b"payload"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """Not the temporary file in it."""
    folder = tmp_path / "no"
    message = f"cannot write {folder / 'm.ep'}: the directory {folder} does not exist; create it"
    with pytest.raises(OutputError, match=f"^{re.escape(message)}$") as caught, atomic_file(tmp_path / "no" / "m.ep"):
        pass
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """As where the output directory was mistyped."""
    (tmp_path / "f").touch()
    with pytest.raises(OutputError, match="f is not a directory"), atomic_file(tmp_path / "f" / "m.ep"):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_named(tmp_path: Path) -> None:
    """And another one suggested."""
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission to write in"), atomic_file(tmp_path / "m.ep"):
        pass


def test_a_directory_in_the_way_is_reported(tmp_path: Path) -> None:
    """The temporary file goes."""
    (tmp_path / "m.ep").mkdir()
    with pytest.raises(OutputError, match=r"m\.ep is a directory"), atomic_file(tmp_path / "m.ep"):
        pass
    assert names_in(tmp_path) == ["m.ep"]


@pytest.mark.linux("a limit of the size of files")
def test_a_full_disk_says_how_much_was_needed(tmp_path: Path) -> None:
    """A file size limit stands in for the disk: the write stops half way, as there."""
    code = (
        "import errno, resource, signal, sys\n"
        "from lightning_trt_windows.artifact.files import atomic_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "with atomic_file(sys.argv[1]) as file:\n"
        "    for _ in range(20):\n"
        "        file.write(bytes(1500))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.ep")], capture_output=True, text=True, check=False
    )
    assert "OutputError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            errno.ENOSPC,
            "no space left on the device, at least 2.0 kB are needed; free some or choose another directory",
        ),
        (errno.EDQUOT, "the disk quota is exceeded, at least 2.0 kB are needed"),
        (errno.EROFS, "is read-only; choose another directory"),
        (errno.EACCES, "no permission to write in"),
    ],
)
def test_the_reason_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str) -> None:
    """For what cannot be had here: a full disk, a quota, a read-only one."""

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=sentence) as caught, atomic_file(tmp_path / "m.ep") as file:
        file.write(bytes(2000))
    assert isinstance(caught.value.__cause__, OSError)
    assert names_in(tmp_path) == []


def test_the_manifest_is_written_as_it_is_read(tiny: Artifact) -> None:
    """Byte for byte, with line ends that do not depend on the system."""
    write_manifest(tiny.manifest_path, tiny.manifest)  # the sample is of an older version
    tiny = read_artifact(tiny.path)
    before = tiny.manifest_path.read_bytes()
    write_manifest(tiny.manifest_path, tiny.manifest)
    assert tiny.manifest_path.read_bytes() == before
    assert b"\r" not in before


def test_a_wrong_manifest_is_not_written(tiny: Artifact) -> None:
    """The old one stays."""
    wrong = relisted(tiny, length=1).manifest
    with pytest.raises(ArtifactError, match="characters of base64"):
        write_manifest(tiny.manifest_path, wrong)
    assert read_artifact(tiny.path) == tiny


def test_removing_the_manifest_ends_the_artifact(tiny: Artifact) -> None:
    """Twice is as good as once."""
    remove_manifest(ArtifactPaths.of(tiny.path))
    remove_manifest(ArtifactPaths.of(tiny.path))
    with pytest.raises(ArtifactError, match="is not an artifact"):
        read_artifact(tiny.path)


# reading


def test_the_sample_is_whole(tiny: Artifact) -> None:
    """By either name, and it says what it is on one line."""
    assert check_artifact(tiny) == check_artifact(tiny.path) == check_artifact(tiny.manifest_path) == tiny
    assert tiny.size == tiny.path.stat().st_size
    assert str(tiny) == f"{tiny.path} ({readable_size(tiny.size)}, 1 tensorrt_rtx engine)"


def test_an_ep_without_manifest_is_no_artifact(tiny: Artifact) -> None:
    """It may be half of an export."""
    tiny.manifest_path.unlink()
    with pytest.raises(ArtifactError, match="did not finish, or it was copied alone"):
        read_artifact(tiny.path)


def test_nothing_at_all_is_said_to_be_nothing(tmp_path: Path) -> None:
    """A mistyped name is not a half export."""
    with pytest.raises(ArtifactError, match=r"does not exist; neither does m\.ep"):
        read_artifact(tmp_path / "m.ep")


def test_a_renamed_artifact_is_refused(tiny: Artifact) -> None:
    """Its manifest describes a file of another name."""
    tiny.path.rename(tiny.path.with_name("game.ep"))
    tiny.manifest_path.rename(tiny.path.with_name("game.json"))
    with pytest.raises(ArtifactError, match=r"describes tiny\.windows\.ep, not game\.ep"):
        read_artifact(tiny.path.with_name("game.ep"))


def test_a_byte_order_mark_is_forgiven(tiny: Artifact) -> None:
    """Editors on Windows put one."""
    tiny.manifest_path.write_bytes(b"\xef\xbb\xbf" + tiny.manifest_path.read_bytes())
    assert read_artifact(tiny.path) == tiny


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe{}", "is not UTF-8 text"), (b" " * ((1 << 24) + 1), "so it is not a manifest"), (b"", "not JSON")],
    ids=["utf-16", "huge", "empty"],
)
def test_what_is_no_manifest_is_refused(tiny: Artifact, content: bytes, message: str) -> None:
    """Also what would only fill the memory."""
    tiny.manifest_path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(tiny.path)


def test_a_directory_instead_of_a_manifest_is_refused(tiny: Artifact) -> None:
    """With what the system says."""
    tiny.manifest_path.unlink()
    tiny.manifest_path.mkdir()
    with pytest.raises(ArtifactError, match="cannot be read: it is a directory"):
        read_artifact(tiny.path)


# integrity


def test_a_missing_ep_is_noticed(tiny: Artifact) -> None:
    """The manifest alone is nothing."""
    tiny.path.unlink()
    with pytest.raises(ArtifactError, match="does not exist; copy it together with its manifest"):
        check_artifact(tiny)


@pytest.mark.parametrize("position", [0, 1, 500, 100_000, -1, -30])
def test_a_changed_byte_is_noticed(tiny: Artifact, position: int) -> None:
    """Wherever it is."""
    data = bytearray(tiny.path.read_bytes())
    data[position] ^= 1
    tiny.path.write_bytes(data)
    with pytest.raises(ArtifactError, match="its content is not that of the export"):
        check_artifact(tiny)


@pytest.mark.parametrize("keep", [0, 1, 1000, 200_000, -1])
def test_a_truncated_file_is_noticed(tiny: Artifact, keep: int) -> None:
    """And that it is no archive any more; both issues come at once."""
    tiny.path.write_bytes(tiny.path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="2 issues") as caught:
        check_artifact(tiny)
    assert "incomplete" in caught.value.issues[0]
    assert "not a readable zip archive" in caught.value.issues[1]


def test_an_appended_byte_is_noticed(tiny: Artifact) -> None:
    """Larger is as wrong as smaller."""
    with tiny.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match=f"has {tiny.size + 1} bytes instead of {tiny.size}"):
        check_artifact(tiny)


def test_a_payload_lies_in_its_member(tiny: Artifact) -> None:
    """In a member that is there, and not beyond its end."""
    with pytest.raises(ArtifactError, match="the archive has no member 'x/y'"):
        check_artifact(relisted(tiny, member="x/y"))
    with pytest.raises(ArtifactError, match="should end at byte"):
        check_artifact(relisted(tiny, offset=2**62))


def test_payloads_do_not_overlap(tiny: Artifact) -> None:
    """Each text belongs to one engine."""
    (engine,) = tiny.manifest.engines
    twin = dataclasses.replace(engine, name="twin", location=dataclasses.replace(engine.location, offset=5))
    doubled = Artifact(tiny.path, dataclasses.replace(tiny.manifest, engines=(engine, twin)))
    with pytest.raises(ArtifactError, match=f"engine {engine.name}: overlaps engine twin"):
        check_artifact(doubled)


def test_a_compressed_member_holds_no_payload(tiny: Artifact) -> None:
    """Its offsets would mean nothing."""
    packed = rezipped(tiny, lambda members: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtifactError, match="is compressed"):
        check_artifact(packed)


def test_members_of_one_name_are_refused(tiny: Artifact) -> None:
    """Two readers would take different ones."""
    with zipfile.ZipFile(tiny.path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"other")
    again = Artifact(
        tiny.path,
        dataclasses.replace(
            tiny.manifest,
            ep=dataclasses.replace(tiny.manifest.ep, size=tiny.path.stat().st_size, sha256=sha256_of(tiny.path)),
        ),
    )
    with pytest.raises(ArtifactError, match="two members of the same name"):
        check_artifact(again)


def test_damage_anywhere_in_the_directory_of_the_archive_is_an_artifact_error(tiny: Artifact) -> None:
    """Whatever zipfile makes of it."""
    data = tiny.path.read_bytes()
    directory = data.rindex(b"PK\x05\x06") - 600
    for position in range(directory, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        tiny.path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            check_artifact(tiny)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (2**63 - 1, "9223372.0 TB"),
    ],
)
def test_sizes_read_well(size: int, text: str) -> None:
    """In powers of ten."""
    assert readable_size(size) == text
