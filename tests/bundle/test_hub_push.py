"""A push to the Hub, by the command and the Hub's own library, to a server of this test that keeps what it gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.artifacts import put
from support.hub_server import TASKS, TOKEN, FakeHub, fake_hub

pytest.importorskip("huggingface_hub", reason="pushes with the Hub's own library")
NAME = "me/net"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """The server."""
    with fake_hub() as state:
        yield state


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with an artifact."""
    put(tmp_path / "run", "best", score=0.9, golden=b"recorded")
    return tmp_path / "run"


def collect(
    hub: FakeHub, run: Path, *options: str, token: str = TOKEN, stdin: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own: the library takes the Hub's address when it is imported."""
    command = [sys.executable, "-m", "lightning_trt_windows", "collect", str(run), "--layout", "huggingface"]
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HOME": str(run.parent / "home"),
        "HF_HUB_DISABLE_XET": "1",  # the server speaks Git LFS
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run(
        [*command, "--out", str(run.parent / "out"), *options],
        env=environment, stdin=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_all_files_arrive(hub: FakeHub, run: Path) -> None:
    """Byte for byte, in a new model; what else lies in the folder does not go."""
    (run.parent / "out").mkdir()
    (run.parent / "out" / "secret.txt").write_text("mine", encoding="utf-8")
    options = ("--license", "apache-2.0", "--pipeline-tag", TASKS[0], "--push", NAME, "--private", "--yes", "--json")
    done = collect(hub, run, *options)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pushed"].startswith(f"{hub.url}/{NAME}/commit/") and said["missing"] == []
    assert hub.private == {NAME: True}
    assert hub.files[NAME] == {name: (run.parent / "out" / name).read_bytes() for name in said["files"]}
    assert "best.windows.ep" in hub.files[NAME] and "secret.txt" not in hub.files[NAME]
    card = hub.files[NAME]["README.md"].decode()
    assert "license: apache-2.0\n" in card and f"pipeline_tag: {TASKS[0]}\n" in card


def test_a_second_push_sends_what_is_new(hub: FakeHub, run: Path) -> None:
    """The model stays as private as it is, and large files that the Hub has are not sent again."""
    assert collect(hub, run, "--push", NAME, "--yes").returncode == 0
    assert hub.private == {NAME: False}
    sent = sum(call.startswith("PUT") for call in hub.calls)
    assert sent >= 3
    done = collect(hub, run, "--push", NAME, "--yes")
    assert done.returncode == 0 and "pushed http" in done.stdout
    assert sum(call.startswith("PUT") for call in hub.calls) == sent
    done = collect(hub, run, "--push", NAME, "--yes", "--private")
    assert done.returncode == 2 and "is there and public" in done.stderr


@pytest.mark.parametrize(("answer", "pushed"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_a_person_is_asked(hub: FakeHub, run: Path, answer: str, pushed: bool) -> None:
    """With the address, the number of files, and whether others will see them; anything but a yes is a no."""
    pytest.importorskip("pty", reason="terminals of POSIX")
    ours, theirs = os.openpty()
    os.write(ours, answer.encode())
    done = collect(hub, run, "--push", NAME, stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert f"to {hub.url}/{NAME}, a new public model, unless its owner makes new ones private? [y/N]" in done.stderr
    assert (NAME in hub.files) == pushed
    assert ("pushed http" if pushed else "not pushed") in done.stdout
    assert "not in the card: license, without which nobody may use the model" in done.stdout


def test_where_nobody_can_be_asked_nothing_is_pushed(hub: FakeHub, run: Path) -> None:
    """In a script, without ``--yes``: neither files nor a question to the Hub."""
    done = collect(hub, run, "--push", NAME)
    assert done.returncode == 2 and "--yes pushes without the question" in done.stderr
    assert hub.calls == [] and not (run.parent / "out").exists()


def test_what_the_hub_refuses(hub: FakeHub, run: Path) -> None:
    """Each with its way on, and no traceback: the token, the card, the name."""
    for options, token, code, words in (
        (("--push", NAME), "hf_of_somebody_else", 10, "log in with `hf auth login`"),
        (("--push", NAME, "--pipeline-tag", "image-clasification"), TOKEN, 2, "the Hub does not take the card"),
        (("--push", "net"), TOKEN, 2, "'net' has no owner; name the model USER/net"),
        (("--push", "me/net/x"), TOKEN, 2, "is not the name of a model on the Hub"),
    ):
        done = collect(hub, run, *options, "--yes", token=token)
        assert done.returncode == code and words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and NAME not in hub.files


def test_a_hub_that_cannot_be_reached(hub: FakeHub, run: Path) -> None:
    """Nothing listens there."""
    nowhere = FakeHub(url="http://127.0.0.1:9")
    done = collect(nowhere, run, "--push", NAME, "--yes")
    assert done.returncode == 10 and "cannot be pushed to the Hub" in done.stderr and "Traceback" not in done.stderr


def test_options_of_the_hub_take_its_layout(hub: FakeHub, run: Path) -> None:
    """A bundle has neither a card nor an address."""
    done = collect(hub, run, "--layout", "bundle", "--out", "b.zip", "--license", "mit", "--push", NAME)
    assert done.returncode == 2 and "--license, --push takes --layout huggingface" in done.stderr
    done = collect(hub, run, "--yes")
    assert done.returncode == 2 and "add --push USER/MODEL" in done.stderr
