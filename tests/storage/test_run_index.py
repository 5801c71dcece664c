"""artifacts.json: what a directory has, kept up to date by a training, made again from manifests."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support.paths import DATA

from lightning_trt_windows.artifact.artifact import read_artifact, write_manifest
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.manifest import FORMAT_VERSION, CheckpointRecord, Manifest, Score
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, UnsupportedFormatError
from lightning_trt_windows.storage.remote_file import RemoteFile
from lightning_trt_windows.storage.run_index import (
    INDEX_NAME,
    IndexEntry,
    RunIndex,
    Standing,
    best_of,
    last_of,
    order_of,
)

if sys.platform != "win32":  # where nothing trains or exports
    from lightning.pytorch.callbacks import ModelCheckpoint
    from support.lightning_models import Data, Regression, trainer

    from lightning_trt_windows import WindowsExport, export_checkpoint

TINY = DATA / "tiny.windows.ep"


def assert_agrees(directory: Path | str) -> RunIndex:
    """The index says what the manifests say, and each hash is that of its file."""
    index = RunIndex.read(directory)
    assert index == RunIndex.of_manifests(directory)
    if isinstance(directory, Path):
        assert {e.file for e in index.entries} == {p.name for p in directory.glob("*.ep")}
        for entry in index.entries:
            assert entry.manifest_sha256 == sha256_of(directory / entry.manifest)
            assert entry.size == (directory / entry.file).stat().st_size
    return index


def artifact_in(directory: Path, name: str, step: int, *scores: Score) -> None:
    """Put a small artifact there, as of a checkpoint after ``step`` steps."""
    shutil.copy(TINY, directory / f"{name}.windows.ep")
    record = CheckpointRecord(
        file=f"{name}.ckpt", sha256="0" * 64, epoch=step // 10, global_step=step, scores=tuple(scores)
    )
    manifest = read_artifact(TINY).manifest
    ep = replace(manifest.ep, file=f"{name}.windows.ep")
    manifest = replace(manifest, format_version=FORMAT_VERSION, ep=ep, checkpoint=record)
    write_manifest(directory / f"{name}.windows.json", manifest)


@pytest.mark.linux("trains")
def test_of_a_training(tmp_path: Path) -> None:
    """While training goes on it names what is there, the best and the last, and no place of this machine."""
    seen = []

    class Watching(Regression):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0 and (tmp_path / INDEX_NAME).exists():
                seen.append(assert_agrees(tmp_path))

    export = WindowsExport(when="checkpoint", executor="inline")
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", monitor="val_loss", save_top_k=2, save_last=True)
    trainer(tmp_path, saver, export, max_epochs=4).fit(Watching(), datamodule=Data())
    index = assert_agrees(tmp_path)
    assert len(seen) == 3
    assert {e.checkpoint for e in index.entries} == {p.name for p in tmp_path.glob("*.ckpt")}
    best = index.best
    assert best is not None
    assert best.checkpoint in (Path(saver.best_model_path).name, "last.ckpt")
    assert saver.best_model_score is not None
    assert (best.monitor, best.mode, best.score) == ("val_loss", "min", pytest.approx(float(saver.best_model_score)))
    assert index.last is not None
    assert index.last.file == "last.windows.ep"
    text = (tmp_path / INDEX_NAME).read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["format_version"] == "1.0"


@pytest.mark.linux("trains")
def test_without_a_monitor(tmp_path: Path) -> None:
    """The best one is what ModelCheckpoint calls so; a checkpoint exported later is added."""
    export = WindowsExport()
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(tmp_path, saver, export, max_epochs=2).fit(Regression(), datamodule=Data())
    index = RunIndex.read(tmp_path)
    assert [(e.file, e.best, e.last, e.score) for e in index.entries] == [("epoch=1.windows.ep", True, True, None)]
    export_checkpoint(tmp_path / "epoch=0.ckpt", Regression, datamodule=Data())
    assert [(e.file, e.best, e.last) for e in RunIndex.read(tmp_path).entries] == [
        ("epoch=0.windows.ep", False, False),
        ("epoch=1.windows.ep", True, True),
    ]


def test_from_manifests(tmp_path: Path) -> None:
    """What is no artifact is not in it; each monitor has its best, and the order is that of the steps."""
    artifact_in(tmp_path, "b", 20, Score(monitor="acc", mode="max", value=0.9))
    artifact_in(tmp_path, "a", 100, Score(monitor="acc", mode="max", value=0.8))
    artifact_in(tmp_path, "c", 30, Score(monitor="loss", mode="min", value=-1.5))
    artifact_in(tmp_path, "cut", 40, Score(monitor="acc", mode="max", value=0.99))
    (tmp_path / "cut.windows.ep").write_bytes(b"half of it")
    artifact_in(tmp_path, "gone", 50)
    (tmp_path / "gone.windows.ep").unlink()
    (tmp_path / "settings.json").write_text('{"lr": 1}')
    index = RunIndex.of_manifests(tmp_path)
    found = [(e.file[0], e.global_step, e.epoch, e.monitor, e.score, e.best, e.last) for e in index.entries]
    assert found == [
        ("b", 20, 2, "acc", 0.9, True, False),
        ("c", 30, 3, "loss", -1.5, True, False),
        ("a", 100, 10, "acc", 0.8, False, True),
    ]
    index.write(tmp_path)
    assert RunIndex.read(tmp_path) == index
    assert [e.last for e in index.without("a.windows.ep").entries] == [False, True]


def test_scores_that_json_lacks() -> None:
    """A monitor that was never a number leaves no score."""
    entry = IndexEntry("a.ep", 1, "a.json", "0" * 64).judged(Standing("loss", "min", float("inf"), best=True))
    assert (entry.score, entry.best) == (None, True)
    json.dumps(asdict(entry), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ArtifactError, "is not an index of artifacts"),
        ("[]", ArtifactError, "is not an index of artifacts"),
        ('{"format_version": "2.0", "artifacts": []}', UnsupportedFormatError, "upgrade"),
        ('{"format_version": "1.0", "artifacts": [{"file": "a.ep"}]}', ArtifactError, "is not an index"),
        (
            '{"format_version": "1.9", "artifacts": [{"file": "../a.ep", "size": 1, "manifest": "a.json", '
            '"manifest_sha256": "", "new": 1}]}',
            ArtifactError,
            "file without directory",
        ),
    ],
)
def test_damaged(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    """What is no index is refused, one of a newer version too, and names that leave the directory."""
    (tmp_path / INDEX_NAME).write_text(text)
    with pytest.raises(error, match=message):
        RunIndex.read(tmp_path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes the index of each directory below a run's, here and elsewhere, and prints it."""
    runs = [tmp_path / "run" / name for name in ("one", "two")]
    for place in runs:
        place.mkdir(parents=True)
        artifact_in(place, place.name, 10, Score(monitor="loss", mode="min", value=0.5))
    assert main(["index", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == set(map(str, runs))
    assert not (runs[0] / INDEX_NAME).exists()
    assert main(["index", str(tmp_path / "run")]) == 0
    assert "one.windows.ep  214.3 kB  step 10  loss 0.5  best  last" in capsys.readouterr().out
    for place in runs:
        assert_agrees(place)
    (runs[0] / "one.windows.ep").unlink()
    assert main(["index", str(tmp_path / "run")]) == 0
    assert RunIndex.read(runs[0]).entries == ()
    assert main(["index", str(runs[0])]) == ArtifactError.exit_code
    assert "there is no artifact in it" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "nowhere")]) == ArtifactError.exit_code
    for file in runs[1].iterdir():
        RemoteFile(f"memory://indexed/two/{file.name}").upload(file)
    RemoteFile(f"memory://indexed/two/{INDEX_NAME}").remove()
    assert main(["index", "memory://indexed"]) == 0
    assert assert_agrees("memory://indexed/two") == RunIndex.read(runs[1])


def test_manifest_of_an_older_format(tmp_path: Path) -> None:
    """One without scores and checkpoint has an entry as well."""
    for path in (TINY, TINY.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    (entry,) = RunIndex.of_manifests(tmp_path).entries
    manifest: Manifest = read_artifact(TINY).manifest
    assert (entry.file, entry.size, entry.checkpoint, entry.last) == (manifest.ep.file, manifest.ep.size, None, True)


@pytest.mark.parametrize(
    ("scores", "mode", "best"),
    [
        ({"a": 0.5, "b": 0.7, "c": 0.6}, "max", "b"),
        ({"a": 0.5, "b": 0.7, "c": 0.6}, "min", "a"),
        ({"a": 0.5, "b": 0.7, "c": 0.7}, "max", "b"),
        ({"last": 0.7, "b": 0.7}, "max", "last"),  # it has fewer steps
    ],
)
def test_best(scores: dict[str, float], mode: str, best: str) -> None:
    """By its score; of equal ones the earliest, which is the one that ModelCheckpoint keeps."""
    scored = [(score, order_of(name, step, 0), name) for step, (name, score) in enumerate(scores.items())]
    assert best_of(scored, mode) == best
    assert best_of(reversed(scored), mode) == best


def test_a_copy_that_is_called_last() -> None:
    """``last.ckpt`` is the last one and not the best one where another is of the same step."""
    orders = [(order_of(name, 20, 1), name) for name in ("last.windows.ep", "epoch=1.windows.ep")]
    assert last_of(orders) == "last.windows.ep"
    assert best_of([(0.5, *order) for order in orders], "min") == "epoch=1.windows.ep"


def test_what_is_not_known_comes_first() -> None:
    """A module that came from no checkpoint has no step."""
    assert last_of([(order_of("a", None, None), "a"), (order_of("b", 0, None), "b")]) == "b"
