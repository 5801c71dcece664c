"""What ``inspect`` shows: tables in a terminal of any width, the same plain text everywhere else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support.artifacts import put

from lightning_trt_windows import collect, inspect
from lightning_trt_windows.artifact.manifest import OperatorCounts
from lightning_trt_windows.cli import main

WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from lightning_trt_windows.cli import main; main(sys.argv[1:])"


def in_terminal(*arguments: object, width: int, code: str | None = None) -> str:
    """What the command shows in a terminal of ``width`` columns, with its colours."""
    fcntl, termios = (pytest.importorskip(name, reason="terminals of POSIX") for name in ("fcntl", "termios"))
    start = ["-c", code] if code else ["-m", "lightning_trt_windows"]
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, *start, *map(str, arguments)], stdout=theirs, env={**environment, "TERM": "xterm-256color"}
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 1 << 16):
                shown += piece
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def plain(shown: str) -> list[str]:
    """Lines without colours."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """With a name and an extra that would do something to a terminal, or be markup."""
    return put(
        tmp_path / "run",
        "a-rather-long-name-of-a-checkpoint-epoch=3-step=99",
        score=0.25,
        operators=OperatorCounts(tensorrt=7, pytorch=2),
        extra={"classes": "[red]none[/red]", "title": "\x1b]0;owned\x07", "long": "x" * 100},
    )


@pytest.mark.parametrize("width", [120, 80, 40])
def test_a_terminal_gets_tables_that_fit(artifact: Path, width: int) -> None:
    """Nothing is cut off, no line is too long, and no text of a manifest is a command to the terminal."""
    shown = in_terminal("inspect", artifact, width=width)
    lines = plain(shown)
    assert "\x1b[" in shown
    assert max(map(len, lines)) <= width
    together = "".join("".join(lines).split())
    for text in (
        "7of9inTensorRT,2inPyTorch",
        "[red]none[/red]",
        "\\x1b]0;owned",
        "x" * 100,
        "val_acc0.25",
        "inputaxis0",
    ):
        assert text in together or width == 40, text
    assert "\x1b]" not in shown
    assert "Ranges" in lines


@pytest.mark.parametrize("width", [120, 80, 40])
def test_a_directory_in_a_terminal(artifact: Path, width: int) -> None:
    """A table where there is room, else a paragraph for each; the whole name in both."""
    lines = plain(in_terminal("inspect", artifact.parent, width=width))
    assert max(map(len, lines)) <= width
    assert artifact.name in "".join(lines)
    assert any("best by val_acc, last" in line for line in lines)


def test_a_pipe_gets_the_same_text_always(artifact: Path, tmp_path: Path) -> None:
    """With rich and without; and a terminal without rich gets it too."""
    wanted = str(inspect(artifact))
    piped = subprocess.run(
        [sys.executable, "-m", "lightning_trt_windows", "inspect", artifact], capture_output=True, text=True, check=True
    )
    assert piped.stdout == wanted + "\n"
    assert "\n".join(plain(in_terminal("inspect", artifact, width=80, code=WITHOUT_RICH))) == wanted


def test_a_directory(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its artifacts, those that are damaged and those that did not finish; the code says whether all are whole."""
    assert main(["inspect", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:3] == [str(tmp_path), "", "Artifacts"]
    assert f"run/{artifact.name}" in out
    put(tmp_path / "other", "unfinished").with_suffix(".json").unlink()
    broken = put(tmp_path / "other", "broken")
    broken.write_bytes(broken.read_bytes()[:-1])
    assert main(["inspect", str(tmp_path)]) == 7
    out = capsys.readouterr().out
    assert "other/unfinished.windows.ep: has no manifest" in out
    assert "Issues\n  other/broken.windows.json: has " in out
    assert main(["inspect", str(tmp_path), "--json"]) == 7
    said = json.loads(capsys.readouterr().out)
    assert [item["file"] for item in said["artifacts"]] == [f"run/{artifact.name}"]
    assert all("broken" in issue for issue in said["issues"])
    assert len(said["unfinished"]) == 1


def test_an_empty_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is no failure: there is nothing wrong in it."""
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["artifacts"] == []


def test_a_bundle(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without unpacking it."""
    bundle = collect(artifact.parent, tmp_path / "b.zip").path
    assert main(["inspect", str(bundle), "--check"]) == 0
    out = capsys.readouterr().out
    assert f"artifacts/{artifact.name}" in out
    assert "requirements-windows.txt" in out
    assert out.endswith("Issues\n  none\n")
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    assert main(["inspect", str(bundle), "--check", "--json"]) == 7
    assert json.loads(capsys.readouterr().out)["issues"]
