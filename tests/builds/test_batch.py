"""Many checkpoints: found, captured once where that will do, built anywhere, skipped where they are there."""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer
from support.paths import MODELS as MODELS_FILE

from lightning_trt_windows import export_checkpoint, export_checkpoints
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.builds.executors.names import check_executor
from lightning_trt_windows.builds.executors.registry import named_executor
from lightning_trt_windows.builds.places import checkpoints_in
from lightning_trt_windows.checkpoints.reader import consolidation
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import CheckpointError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.progress.events import listening
from lightning_trt_windows.storage.remote_file import RemoteFile

MODELS = str(MODELS_FILE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with different hyperparameters, two checkpoints each."""
    directory = tmp_path_factory.mktemp("runs")
    for width in (5, 7):
        run = directory / f"width{width}" / "checkpoints"
        saver = ModelCheckpoint(run, filename="{epoch}", save_top_k=-1)
        trainer(directory, saver, max_epochs=2).fit(Regression(width=width), datamodule=Data())
    return directory


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    for checkpoint in trained.rglob("*.ckpt"):
        copy = tmp_path / checkpoint.relative_to(trained)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(checkpoint.read_bytes())
    return tmp_path


class TestWhichCheckpoints:
    """Files, directories, patterns."""

    def test_patterns_and_directories(self, runs: Path) -> None:
        """Each once, by name; a file whose name looks like a pattern is that file."""
        odd = runs / "a[1].ckpt"
        odd.write_bytes(b"")
        everything = checkpoints_in([runs])
        assert [p.relative_to(runs).as_posix() for p in everything if isinstance(p, Path)] == [
            "a[1].ckpt",
            *(f"width{w}/checkpoints/epoch={e}.ckpt" for w in (5, 7) for e in (0, 1)),
        ]
        assert checkpoints_in([f"{runs}/**/*.ckpt"]) == everything
        assert checkpoints_in([odd, f"{runs}/*.ckpt", runs / "nothing.ckpt"]) == [odd, runs / "nothing.ckpt"]

    @pytest.mark.parametrize("place", ["", "no*thing"])
    def test_none(self, tmp_path: Path, place: str) -> None:
        """A directory or a pattern without checkpoints is a mistake."""
        with pytest.raises(ConfigurationError, match="there is no checkpoint"):
            checkpoints_in([tmp_path / place])

    def test_on_other_file_systems(self) -> None:
        """Directories and patterns too."""
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").pipe({"/many/a/x.ckpt": b"", "/many/y.ckpt": b"", "/many/z.txt": b""})
        found = [str(place) for place in checkpoints_in(["memory://many", "memory://many/*.ckpt", "memory://q.ckpt"])]
        assert sorted(found) == ["memory:///many/a/x.ckpt", "memory:///many/y.ckpt", "memory://q.ckpt"]


class TestExports:
    """From many checkpoints to many artifacts."""

    def test_all(self, runs: Path) -> None:
        """One capture for each set of hyperparameters; each artifact is the one that export_checkpoint makes."""
        stages: list[str] = []
        with listening(lambda name, of: stages.append(name)):
            exports = export_checkpoints([runs], Regression, Data(), executor="inline")
        assert exports.failures == []
        assert (stages.count("capture"), stages.count("compile")) == (2, 4)
        assert [export.checkpoint for export in exports.made] == checkpoints_in([runs])
        assert not any(export.existed for export in exports.made)
        for artifact in exports.artifacts:
            check_artifact(artifact)
        last = exports.made[-1]
        (runs / "again").mkdir()
        again = export_checkpoint(last.checkpoint, Regression, Data(), output=runs / "again")  # type: ignore[arg-type]
        assert again.manifest.checkpoint == last.artifact.manifest.checkpoint
        assert again.manifest.engines[0].size == last.artifact.manifest.engines[0].size
        assert not list(runs.rglob(".*"))

    def test_what_is_there(self, runs: Path) -> None:
        """What is there already is left as it is, in milliseconds; what is of another request is not."""
        where = runs / "width5"
        export_checkpoints([where], Regression, Data(), executor="inline")
        written = [path.stat().st_mtime_ns for path in sorted(where.rglob("*.ep"))]
        times: list[float] = []

        def seen(done: int, total: int, doing: str) -> None:
            times.append(time.perf_counter())

        again = export_checkpoints([where], Regression, Data(), executor="inline", report=seen)
        assert [export.existed for export in again.made] == [True, True]
        assert [path.stat().st_mtime_ns for path in sorted(where.rglob("*.ep"))] == written
        assert time.perf_counter() - times[-1] < 0.25  # the second of them: the first is captured
        other = export_checkpoints([where], Regression, Data(), executor="inline", extra={"version": 2})
        assert [export.existed for export in other.made] == [False, False]

    def test_one_that_fails(self, runs: Path) -> None:
        """The others are exported all the same; a file that is no checkpoint and one of another module are named."""
        broken, foreign = runs / "width5" / "broken.ckpt", runs / "width5" / "foreign.ckpt"
        broken.write_bytes(b"nothing")
        content = torch.load(runs / "width5" / "checkpoints" / "epoch=0.ckpt")
        torch.save({**content, "state_dict": {"other": torch.ones(3)}}, foreign)
        exports = export_checkpoints([runs / "width5"], Regression, Data(), executor="inline")
        assert {f.checkpoint for f in exports.failures} == {broken, foreign}
        assert all(isinstance(f.error, CheckpointError) for f in exports.failures)
        assert len(exports.artifacts) == 2

    def test_into_one_directory(self, runs: Path) -> None:
        """Artifacts of one name are refused before anything is done; others go there together."""
        with pytest.raises(ConfigurationError, match=r"epoch=0\.ckpt, epoch=1\.ckpt would be written more than once"):
            export_checkpoints([runs], Regression, Data(), output=runs / "out")
        exports = export_checkpoints([runs / "width7"], Regression, Data(), executor="inline", output=runs / "out")
        assert [a.path for a in exports.artifacts] == [runs / "out" / f"epoch={e}.windows.ep" for e in (0, 1)]

    def test_sharded(self, tmp_path: Path) -> None:
        """A checkpoint in parts is refused with the command that makes one file of it."""
        sharded = tmp_path / "a.ckpt"
        sharded.mkdir()
        (sharded / ".metadata").write_bytes(b"")
        (failure,) = export_checkpoints([tmp_path], Regression, executor="inline").failures
        assert failure.checkpoint == sharded
        assert "consolidate_checkpoint" in str(failure.error) and "--trust-checkpoint" in str(failure.error)
        (failure,) = export_checkpoints([tmp_path], Regression, executor="inline", trust_checkpoint=True).failures
        assert "the one for FSDPStrategy: " in str(failure.error) and "the one for ModelPar" in str(failure.error)
        assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"], "nothing half is left"

    @pytest.mark.parametrize("name", ["lightning", "pytorch_lightning"])
    def test_programs_for_parts(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each Lightning has them under its own name."""
        pytest.importorskip(name)
        find = importlib.util.find_spec
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda module: find(module) if module == name else None)
            programs = consolidation(Path("a.ckpt"), Path("b.ckpt"))
        assert [arguments[1:] for arguments in programs.values()] == [["a.ckpt", "--output_file", "b.ckpt"]] * 2
        for module, *_ in programs.values():
            assert module.startswith("lightning.") == (name == "lightning")
            assert find(module) is not None


class TestElsewhere:
    """Checkpoints of a bucket: this machine's disk holds what is worked on."""

    @pytest.fixture
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The directory for temporary files."""
        directory = tmp_path / "temporary"
        directory.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(directory))
        return directory

    @pytest.fixture
    def bucket(self, trained: Path) -> Iterator[str]:
        """Both runs' checkpoints, four in all, with other names."""
        system = pytest.importorskip("fsspec").filesystem("memory")
        for number, checkpoint in enumerate(sorted(trained.rglob("*.ckpt"))):
            system.pipe(f"/bucket/{number}.ckpt", checkpoint.read_bytes())
        yield "memory://bucket"
        system.rm("/bucket", recursive=True)

    def test_nothing_stays(self, bucket: str, temporary: Path, tmp_path: Path) -> None:
        """One checkpoint at a time and one that is copied meanwhile; afterwards nothing, whatever became of each."""
        here: list[int] = []

        def look(done: int, total: int, doing: str) -> None:
            here.append(len(list(temporary.rglob("*.ckpt"))))

        exports = export_checkpoints([bucket], Regression, Data(), executor="inline", report=look)
        assert (len(exports.made), exports.failures) == (4, [])
        assert max(here) <= 2
        assert list(temporary.iterdir()) == []
        again = export_checkpoints([bucket], Regression, Data(), executor="inline")
        assert [export.existed for export in again.made] == [True] * 4
        assert list(temporary.iterdir()) == []
        (artifact,) = export_checkpoints([f"{bucket}/0.ckpt"], Regression, Data(), output=tmp_path / "out").artifacts
        assert check_artifact(artifact).path == tmp_path / "out" / "0.windows.ep"
        assert list(temporary.iterdir()) == []

    def test_one_that_fails(self, bucket: str, temporary: Path) -> None:
        """Its log stays, the message says where, and its checkpoint goes; what is no checkpoint leaves nothing."""
        import fsspec

        content = torch.load(io.BytesIO(fsspec.filesystem("memory").cat("/bucket/1.ckpt")))
        odd = io.BytesIO()
        torch.save({**content, "state_dict": {"other": torch.ones(3)}}, odd)
        fsspec.filesystem("memory").pipe({"/bucket/1.ckpt": odd.getvalue(), "/bucket/2.ckpt": b"nothing"})
        exports = export_checkpoints([bucket], Regression, Data(), executor="process", workers=1)
        assert [failure.checkpoint.name for failure in exports.failures if failure.checkpoint] == ["1.ckpt", "2.ckpt"]
        assert len(exports.made) == 2
        assert not list(temporary.rglob("*.ckpt"))
        for failure in exports.failures:
            kept = [path for path in temporary.rglob("*.failed") if str(path.parent) in str(failure.error)]
            assert bool(kept) == ("of this machine" in str(failure.error))

    def test_cannot_be_uploaded(self, bucket: str, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The artifact stays whole on this machine, as the message says, and its checkpoint goes."""

        def refused(file: RemoteFile, source: Path) -> None:
            raise PermissionError("not yours")

        monkeypatch.setattr(RemoteFile, "upload", refused)
        (failure,) = export_checkpoints([f"{bucket}/0.ckpt"], Regression, Data(), executor="inline").failures
        (kept,) = temporary.rglob("*.ep")
        assert str(check_artifact(kept).path) in str(failure.error)
        assert not list(temporary.rglob("*.ckpt"))


class TestCommand:
    """``export`` with more than one checkpoint."""

    def test_json(self, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What was made and what failed, and the code of the first failure."""
        (runs / "width5" / "broken.ckpt").write_bytes(b"nothing")
        command = ["export", f"{runs}/width5/**/*.ckpt", "--module", f"{MODELS}:Regression", "--executor", "inline"]
        assert main([*command, "--datamodule", f"{MODELS}:Data", "--json"]) == CheckpointError.exit_code
        shown = capsys.readouterr()
        said = json.loads(shown.out)
        assert [Path(one["artifact"]).name for one in said["artifacts"]] == ["epoch=0.windows.ep", "epoch=1.windows.ep"]
        assert [(one["existed"], one["engines"]) for one in said["artifacts"]] == [(False, 1), (False, 1)]
        (failure,) = said["failures"]
        assert (Path(failure["checkpoint"]).name, failure["exit_code"]) == ("broken.ckpt", 9)
        assert "broken.ckpt" in shown.err
        (runs / "width5" / "broken.ckpt").unlink()
        assert main([*command, "--datamodule", f"{MODELS}:Data"]) == 0
        shown = capsys.readouterr()
        assert "0 made, 2 there already, 0 failed" in shown.out
        assert shown.err == ""

    def test_unknown_executor(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It is refused before torch is imported."""
        assert main(["export", "a.ckpt", "--module", "x:Y", "--executor", "spark"]) == ConfigurationError.exit_code
        assert "dask:ADDRESS" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "spark", "dask", "dask:", "process:3", "loky:many", "loky:0", "submitit"])
def test_names_of_executors(name: str) -> None:
    """A name that means nothing is refused with those that do."""
    with pytest.raises(ConfigurationError, match=r"executor must be one of|expected a number"):
        check_executor(name)


def test_no_scheduler() -> None:
    """A Dask scheduler that does not answer is an error that names it."""
    import distributed

    import lightning_trt_windows.builds.executors.registry as named

    real: Any = distributed.Client
    try:
        distributed.Client = lambda address, **options: real(address, **{**options, "timeout": "1s"})  # type: ignore[assignment,misc]
        with pytest.raises(EnvironmentMismatchError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
            named.named_executor("dask:tcp://127.0.0.1:1")
    finally:
        distributed.Client = real  # type: ignore[misc]
    named_executor("inline").shutdown()
