"""Which artifacts of a run are collected, and which files of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.artifacts import put

from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.bundle.gathering import Which
from lightning_trt_windows.bundle.pins import SAFETENSORS
from lightning_trt_windows.bundle.selection import select
from lightning_trt_windows.errors import ArtifactError, ConfigurationError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three checkpoints, the second of which is the best."""
    for step, score in ((1, 0.5), (2, 0.9), (3, 0.7)):
        put(tmp_path / "run", f"step={step}", step=step, score=score)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("which", "steps"), [("all", ["step=1", "step=2", "step=3"]), ("best", ["step=2"]), ("last", ["step=3"])]
)
def test_which_are_taken(run: Path, which: Which, steps: list[str]) -> None:
    """Of all that were found."""
    selection = select(run, which, skip_damaged=False)
    assert [item.artifact.paths.name for item, _ in selection.items] == steps
    assert len(selection.gathering.artifacts) == 3
    assert {folder for _, folder in selection.items} == {"artifacts"}


def test_a_directory_in_any_form(run: Path) -> None:
    """As text, as a path, or in a list with others."""
    forms: list[str | Path | Sequence[str | Path]] = [str(run), run, [run], (str(run),)]
    for form in forms:
        assert len(select(form, "all", skip_damaged=False).items) == 3


def test_several_runs_have_folders(run: Path, tmp_path: Path) -> None:
    """By the names of their directories."""
    put(tmp_path / "other", "step=1")
    selection = select([run, tmp_path / "other"], "last", skip_damaged=False)
    assert [(item.artifact.paths.name, folder) for item, folder in selection.items] == [
        ("step=3", "artifacts/run"),
        ("step=1", "artifacts/other"),
    ]


def test_the_files_of_an_artifact(tmp_path: Path) -> None:
    """Goldens and signature only where there are any; each with its own size and hash."""
    paths = [put(tmp_path / "run", "bare"), put(tmp_path / "run", "full", golden=b"recorded")]
    paths[1].with_name("full.windows.json.sig").write_bytes(b"signed")
    (tmp_path / "run" / "full.windows.log").write_bytes(b"no part of it")
    selection = select(tmp_path / "run", "all", skip_damaged=False)
    members = list(selection.members())
    assert [member.name for member in members] == [
        "artifacts/bare.windows.ep",
        "artifacts/bare.windows.json",
        "artifacts/full.windows.ep",
        "artifacts/full.windows.json",
        "artifacts/full.windows.golden.safetensors",
        "artifacts/full.windows.json.sig",
    ]
    for member in members:
        content = b"".join(map(bytes, member.pieces()))
        assert (len(content), hashlib.sha256(content).hexdigest()) == (member.size, member.sha256)
        assert sha256_of(tmp_path / "run" / member.name.rpartition("/")[2]) == member.sha256
    assert selection.has_goldens
    assert [item.signed for item, _ in selection.items] == [False, True]


def test_requirements_are_those_of_what_was_chosen(tmp_path: Path) -> None:
    """What reads goldens and signatures is asked for only where there are some among the chosen."""
    put(tmp_path / "run", "one", step=1, golden=b"recorded").with_name("one.windows.json.sig").write_bytes(b"signed")
    put(tmp_path / "run", "two", step=2)
    everything = select(tmp_path / "run", "all", skip_damaged=False).requirements(None)
    last = select(tmp_path / "run", "last", skip_damaged=False)
    assert f"safetensors=={SAFETENSORS}" in everything
    assert "cryptography" in everything
    assert not last.has_goldens
    assert "safetensors" not in last.requirements(None)
    assert "cryptography" not in last.requirements(None)


def test_artifacts_that_no_environment_can_run(tmp_path: Path) -> None:
    """Are refused together, and each alone has its requirements."""
    put(tmp_path / "a", "one", versions={"torch": "2.13.1+cu130"})
    put(tmp_path / "b", "two", versions={"torch": "2.14.1+cu130"})
    with pytest.raises(ConfigurationError, match="torch"):
        select([tmp_path / "a", tmp_path / "b"], "all", skip_damaged=False).requirements(None)
    assert "torch==2.13.1" in select(tmp_path / "a", "all", skip_damaged=False).requirements(None)


def test_damaged_artifacts(run: Path) -> None:
    """Stop it, or are left out and named."""
    (run / "step=2.windows.ep").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"step=2\.windows\.json: has 0 bytes"):
        select(run, "all", skip_damaged=False)
    selection = select(run, "best", skip_damaged=True)
    assert [item.artifact.paths.name for item, _ in selection.items] == ["step=3"]
    assert any("step=2.windows.json" in reason for reason in selection.gathering.left_out)


def test_where_the_result_goes_is_not_searched(run: Path) -> None:
    """Doing it again would take the copies of the first time."""
    put(run / "hub", "copy")
    assert len(select(run, "all", skip_damaged=False).items) == 4
    assert len(select(run, "all", skip_damaged=False, leave_out=run / "hub").items) == 3


@pytest.mark.parametrize("which", ["all", "best"])
def test_nothing_to_choose_from(tmp_path: Path, which: Which) -> None:
    """No directory, none that is there, none with artifacts in it."""
    with pytest.raises(ConfigurationError, match="no directory was given"):
        select([], which, skip_damaged=False)
    with pytest.raises(ConfigurationError, match="is not a directory"):
        select(tmp_path / "no", which, skip_damaged=False)
    with pytest.raises(ConfigurationError, match="there is no artifact in or below"):
        select(tmp_path, which, skip_damaged=False)


def test_no_score_tells_the_best(tmp_path: Path) -> None:
    """Unless a checkpoint has one."""
    put(tmp_path, "one")
    with pytest.raises(ConfigurationError, match="no manifest has a score"):
        select(tmp_path, "best", skip_damaged=False)
