"""Artifacts in the loggers of a Trainer: each the real one, writing to this machine."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from support.lightning_models import Data, Regression, trainer
from support.paths import DATA

from lightning_trt_windows import WindowsExport, loggers
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.loggers import LoggedArtifact, register

EPOCHS = 2


def fit(directory: Path, logger: Any, *, save_top_k: int = 1, **options: Any) -> WindowsExport:
    """Train for two epochs with every checkpoint exported, of which one is kept."""
    export = WindowsExport(when="checkpoint", executor="inline", **options)
    saver = ModelCheckpoint(directory / "ckpt", filename="{epoch}", monitor="epoch", mode="max", save_top_k=save_top_k)
    run = trainer(directory, saver, export, max_epochs=EPOCHS, logger=logger, log_every_n_steps=1)
    run.fit(_Logging(), datamodule=Data())
    assert run.state.finished
    assert export.failures == []
    return export


class _Logging(Regression):
    """Logs the epoch, so that the last one is the best."""

    def on_train_epoch_end(self) -> None:
        self.log("epoch", float(self.current_epoch))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where MLflow's tables and artifacts are; to make the tables takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


class TestMLflow:
    """A store in SQLite, artifacts in a directory."""

    @pytest.mark.parametrize(
        ("log_model", "logged"), [(False, set()), (True, {"epoch=1"}), ("all", {"epoch=0", "epoch=1"})]
    )
    def test_as_checkpoints(self, tmp_path: Path, store: Path, log_model: Any, logged: set[str]) -> None:
        """The files are in the folders of the checkpoints, where checkpoints are logged; tags are there anyway."""
        from lightning.pytorch.loggers import MLFlowLogger

        logger = MLFlowLogger(
            tracking_uri=f"sqlite:///{store}/mlflow.db",
            artifact_location=(store / "artifacts").as_uri(),
            log_model=log_model,
        )
        export = fit(tmp_path, logger)
        client, run_id = logger.experiment, logger.run_id
        assert run_id is not None
        folders = {item.path for item in client.list_artifacts(run_id)}
        assert folders == logged
        for name in logged:
            files = {item.path.rpartition("/")[2] for item in client.list_artifacts(run_id, name)}
            ours = {f"{name}.windows.{end}" for end in ("ep", "json", "metadata.yaml", "aliases.txt")}
            assert files - {f"{name}.ckpt", "metadata.yaml", "aliases.txt"} == ours
            assert f"{name}.ckpt" in files
            folder = Path(client.download_artifacts(run_id, name, str(tmp_path)))
            check_artifact(folder / f"{name}.windows.ep")
            aliases = (folder / f"{name}.windows.aliases.txt").read_text()
            assert aliases == (folder / "aliases.txt").read_text()
        tags = client.get_run(run_id).data.tags
        manifest = export.artifacts[-1].manifest
        assert tags["windows.file"] == tags["windows.best"] == "epoch=1.windows.ep"
        assert tags["windows.sha256"] == manifest.ep.sha256
        assert tags["windows.inputs.x"] == "float32[1..8..8, 4]"
        assert tags["windows.engines"] == str(len(manifest.engines))
        assert tags["windows.versions.torch"] == manifest.versions["torch"]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact with both files, metadata and aliases is in the run's file, to be synchronized later."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    logger = WandbLogger(save_dir=tmp_path, mode="offline", log_model="all", id="run7")
    export = fit(tmp_path, logger)
    logger.experiment.finish()
    # `finish` only tells wandb's service to close the run's file, whose last 32 KiB are in its memory until then
    # (`ServiceConnection.inform_finish` waits for no answer); `teardown` waits until that service has ended.
    wandb.teardown()
    (path,) = tmp_path.glob("wandb/offline-run-*/run-run7.wandb")
    artifacts = []
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "request" and record.request.HasField("log_artifact"):
            artifacts.append(record.request.log_artifact.artifact)
        elif record.WhichOneof("record_type") == "artifact":
            artifacts.append(record.artifact)
    ours = [artifact for artifact in artifacts if artifact.name == "model-run7-windows"]
    assert [artifact.type for artifact in ours] == ["model", "model"]
    assert [set(artifact.aliases) for artifact in ours] == [{"latest", "best"}] * EPOCHS
    manifest = export.artifacts[-1].manifest
    contents = {entry.path: entry for entry in ours[-1].manifest.contents}
    assert set(contents) == {"epoch=1.windows.ep", "epoch=1.windows.json"}
    assert contents["epoch=1.windows.ep"].size == manifest.ep.size
    assert Path(contents["epoch=1.windows.ep"].local_path).read_bytes() == export.artifacts[-1].path.read_bytes()
    assert json.loads(ours[-1].metadata)["sha256"] == manifest.ep.sha256


def _records(data: bytes) -> Iterator[bytes]:
    """Records of a run's file: a log of LevelDB's kind, in blocks of 32 KiB, after 7 bytes of its own."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        if (1 << 15) - place % (1 << 15) < 7:  # no room for a header
            place += (1 << 15) - place % (1 << 15)
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole, or the last part
            yield parts
            parts = b""


def test_tensorboard(tmp_path: Path) -> None:
    """A table per checkpoint at its step, and nothing big."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    export = fit(tmp_path, logger)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"windows_export/epoch=0/text_summary", "windows_export/epoch=1/text_summary"} <= set(tags)
    (event,) = events.Tensors("windows_export/epoch=1/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    manifest = export.artifacts[-1].manifest
    assert manifest.checkpoint is not None
    assert event.step == manifest.checkpoint.global_step
    assert "| inputs.x | float32[1..8..8, 4] |" in text
    assert f"| sha256 | {manifest.ep.sha256} |" in text
    assert sum(path.stat().st_size for path in Path(logger.log_dir).glob("events*")) < 100_000


def test_csv(tmp_path: Path) -> None:
    """A row per artifact in a file of its own; metrics.csv stays as it is without."""
    logger = CSVLogger(tmp_path)
    export = fit(tmp_path, logger)
    with Path(logger.log_dir, "windows_artifacts.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["epoch=0.windows.ep", "epoch=1.windows.ep"]
    assert rows[-1]["sha256"] == export.artifacts[-1].manifest.ep.sha256
    assert (rows[-1]["monitor"], float(rows[-1]["score"])) == ("epoch", 1.0)
    assert "windows" not in Path(logger.log_dir, "metrics.csv").read_text()


def test_comet_offline(tmp_path: Path) -> None:
    """An offline experiment has the model's files and the values in its archive."""
    # comet_ml wants to be imported before torch, and starts threads that outlive a test
    script = f"""
import os
os.environ.update(COMET_START_ONLINE="0", COMET_API_KEY="0" * 25, COMET_OFFLINE_DIRECTORY={str(tmp_path)!r})
import comet_ml
from lightning.pytorch.loggers import CometLogger
from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.loggers import ArtifactLogging, LoggedArtifact
logger = CometLogger(project="p", log_code=False, log_env_details=False)
record = LoggedArtifact(read_artifact({str(DATA / "tiny.windows.ep")!r}), 7, best=True)
logging = ArtifactLogging([logger], True, every=False, warn=print)
logging.on_artifact(record)
logging.finish(lambda record: record)
logger.experiment.end()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "did not take" not in done.stdout
    (archive,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(archive) as content:
        messages = content.read("messages.json").decode()
    for text in ("tiny-windows", "tiny.windows.ep", "tiny.windows.json", "windows.inputs.input", "float32[1..4..8, 4]"):
        assert text in messages


class _Plain(Logger):
    """A logger that knows nothing of artifacts."""

    name = version = "plain"

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...


class TestOthers:
    """Loggers that Lightning does not have."""

    def test_own_method_and_registered(self, tmp_path: Path) -> None:
        """A logger with the method is called, one with a registered adapter too, and any other is left alone."""
        seen: list[LoggedArtifact] = []

        class Own(_Plain):
            def log_windows_artifact(self, record: LoggedArtifact) -> None:
                assert all(path.is_file() for path in record.files)
                seen.append(record)

        class Foreign(_Plain): ...

        class Adapter:
            def log_values(self, logger: Any, record: LoggedArtifact) -> None:
                values.append((logger, record.values["file"]))

            def log_files(self, logger: Any, record: LoggedArtifact) -> None:
                files.append((logger, record.name))

        values: list[Any] = []
        files: list[Any] = []
        register(Foreign, Adapter())
        foreign = Foreign()
        try:
            fit(tmp_path, [_Plain(), Own(), foreign])
        finally:
            loggers._REGISTERED.pop(Foreign)
        assert [(record.name, record.best, record.aliases) for record in seen] == [
            ("epoch=0", True, ["latest", "best"]),
            ("epoch=1", True, ["latest", "best"]),
        ]
        assert values == [(foreign, "epoch=0.windows.ep"), (foreign, "epoch=1.windows.ep")]
        assert files == [(foreign, "epoch=0"), (foreign, "epoch=1")]

    def test_failures_stay_outside(self, tmp_path: Path) -> None:
        """A logger that fails is a warning; the others, the artifacts and the training are as without it."""
        seen: list[LoggedArtifact] = []

        class Broken(_Plain):
            def log_windows_artifact(self, record: LoggedArtifact) -> None:
                raise ConnectionError("the server is on holiday")

        class Own(_Plain):
            def log_windows_artifact(self, record: LoggedArtifact) -> None:
                seen.append(record)

        with pytest.warns(UserWarning, match="Broken did not take an artifact: ConnectionError: the server is on hol"):
            export = fit(tmp_path, [Broken(), Own()], on_error="raise")
        assert len(seen) == EPOCHS
        check_artifact(export.artifacts[-1])

    def test_nothing(self, tmp_path: Path) -> None:
        """log_artifacts=False leaves every logger alone; other values than its own are refused."""

        class Own(_Plain):
            def log_windows_artifact(self, record: LoggedArtifact) -> None:
                raise AssertionError

        fit(tmp_path, Own(), log_artifacts=False)
        with pytest.raises(ConfigurationError, match="log_artifacts must be one of None, True, False, 'all'"):
            WindowsExport(log_artifacts="best")  # type: ignore[arg-type]  # that is what is tested


def test_loggers_are_imported_when_there_is_one() -> None:
    """The callback imports no package of a logger."""
    script = (
        "import sys, lightning_trt_windows.training.callback; "
        "print(sorted({'mlflow', 'wandb', 'comet_ml', 'tensorboard', 's3fs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
