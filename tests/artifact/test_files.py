"""Files under temporary names that take the place of others, and what is said where they cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lightning_trt_windows.artifact.files import (
    TEMPORARY_PREFIX,
    link_or_copy,
    output_errors,
    replacing,
    temporary_name,
)
from lightning_trt_windows.errors import ArtifactError, OutputError


def names_in(directory: Path) -> list[str]:
    """What is left there."""
    return sorted(path.name for path in directory.iterdir())


def test_temporary_names_are_all_different() -> None:
    """And can be told by how they begin and end."""
    names = {temporary_name(".part") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(TEMPORARY_PREFIX) and name.endswith(".part") for name in names)
    assert temporary_name().endswith(".tmp")


class TestReplacing:
    """A file appears whole under its name, or the old one stays."""

    @pytest.mark.parametrize("old", [None, "old"])
    def test_the_file_gets_its_name_at_the_end(self, tmp_path: Path, old: str | None) -> None:
        """In place of an older one, where there is one."""
        path = tmp_path / "m.onnx"
        if old is not None:
            path.write_text(old)
        with replacing(path, ".part") as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.startswith(TEMPORARY_PREFIX)
            assert temporary.suffix == ".part"
            assert not temporary.exists()
            temporary.write_text("new")
            assert (path.read_text() if path.exists() else None) == old
        assert path.read_text() == "new"
        assert names_in(tmp_path) == ["m.onnx"]

    @pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
    def test_a_failure_keeps_the_old_file(self, tmp_path: Path, failure: type[BaseException]) -> None:
        """The failure itself passes through, and what was written is deleted."""
        path = tmp_path / "m.onnx"
        path.write_text("old")

        def fail() -> None:
            with replacing(path) as temporary:
                temporary.write_text("half")
                raise failure

        with pytest.raises(failure):
            fail()
        assert path.read_text() == "old"
        assert names_in(tmp_path) == ["m.onnx"]

    def test_errors_of_the_block_are_not_turned(self, tmp_path: Path) -> None:
        """They may be of other files: the block says what they mean."""
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "m"):
            (tmp_path / "no").read_text()
        assert names_in(tmp_path) == []

    def test_a_block_that_makes_no_file(self, tmp_path: Path) -> None:
        """Is a failure of the file that was wanted; the old one stays."""
        path = tmp_path / "m"
        path.write_text("old")
        with pytest.raises(OutputError, match="cannot write"), replacing(path):
            pass
        assert path.read_text() == "old"

    def test_a_directory_in_the_way(self, tmp_path: Path) -> None:
        """Is named, and nothing is left beside it."""
        (tmp_path / "m").mkdir()
        with pytest.raises(OutputError, match="m is a directory") as caught, replacing(tmp_path / "m") as temporary:
            temporary.touch()
        assert isinstance(caught.value.__cause__, OSError)
        assert names_in(tmp_path) == ["m"]

    def test_two_at_once(self, tmp_path: Path) -> None:
        """Do not meet; the last one stays."""
        path = tmp_path / "m"
        with replacing(path) as first:
            first.write_text("first")
            with replacing(path) as second:
                second.write_text("second")
            assert path.read_text() == "second"
        assert path.read_text() == "first"
        assert names_in(tmp_path) == ["m"]


class TestLinkOrCopy:
    """A second name of a file, or the same bytes."""

    def test_a_link(self, tmp_path: Path) -> None:
        """Which takes no space, in place of what had the name."""
        (tmp_path / "a").write_bytes(b"content")
        (tmp_path / "b").write_bytes(b"old")
        link_or_copy(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"content"
        assert (tmp_path / "a").samefile(tmp_path / "b")
        assert names_in(tmp_path) == ["a", "b"]

    def test_a_copy_where_links_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on FAT and on some network file systems."""

        def refuse(source: object, path: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
        (tmp_path / "a").write_bytes(b"content")
        link_or_copy(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"content"
        assert not (tmp_path / "a").samefile(tmp_path / "b")
        assert names_in(tmp_path) == ["a", "b"]

    def test_a_source_that_is_not_there(self, tmp_path: Path) -> None:
        """Leaves nothing."""
        with pytest.raises(OutputError, match="cannot write"):
            link_or_copy(tmp_path / "a", tmp_path / "b")
        assert names_in(tmp_path) == []


class TestOutputErrors:
    """An error of the operating system becomes one that says what to do."""

    def test_other_errors_pass(self, tmp_path: Path) -> None:
        """Ours say it already."""
        for error in (ArtifactError("m", ["damaged"]), OutputError("full"), ValueError("no")):
            with pytest.raises(type(error)) as caught, output_errors(tmp_path / "m", 0):
                raise error
            assert caught.value is error

    def test_an_error_that_nobody_knows(self, tmp_path: Path) -> None:
        """Keeps the words of the system, or those that it was raised with."""
        known = OSError(errno.EIO, os.strerror(errno.EIO))
        for error, reason in ((known, os.strerror(errno.EIO)), (OSError("the server is gone"), "the server is gone")):
            with pytest.raises(OutputError) as caught, output_errors(tmp_path / "m", 0):
                raise error
            assert str(caught.value) == f"cannot write {tmp_path / 'm'}: {reason}"
            assert caught.value.__cause__ is error
