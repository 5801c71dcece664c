"""when="checkpoint": every checkpoint that a Trainer keeps has its artifact, and training does not change for it."""

from __future__ import annotations

import os
import resource
import signal
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from support import building
from support.lightning_models import Data, Regression, trainer
from support.unchanged import assert_unchanged

from lightning_trt_windows import WindowsExport, export_checkpoint
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.artifact.files import TEMPORARY_PREFIX, sha256_of
from lightning_trt_windows.builds import queue as pending
from lightning_trt_windows.builds.executors.process import Inline
from lightning_trt_windows.errors import CompileError, ConfigurationError


def stems(directory: Path, suffix: str) -> set[str]:
    """Names in ``directory`` that end in ``suffix``, without it."""
    return {path.name.removesuffix(suffix) for path in directory.glob(f"*{suffix}")}


def assert_complete(directory: Path, export: WindowsExport) -> None:
    """Every checkpoint has its own whole artifact, nothing else is there, and the callback says the same."""
    assert export.failures == []
    checkpoints = stems(directory, ".ckpt")
    assert stems(directory, ".windows.ep") == stems(directory, ".windows.json") == checkpoints
    assert {a.path.name for a in export.artifacts} == {f"{name}.windows.ep" for name in checkpoints}
    for artifact in export.artifacts:
        check_artifact(artifact)
        record = artifact.manifest.checkpoint
        assert record is not None
        assert record.sha256 == sha256_of(directory / record.file)
    assert not list(directory.glob(f"{TEMPORARY_PREFIX}*"))


def each_checkpoint(**options: Any) -> WindowsExport:
    """The callback that is tested; inline, where it makes no difference."""
    return WindowsExport(when="checkpoint", **{"executor": "inline", **options})


class TestWhichCheckpoints:
    """Whoever writes it."""

    def test_all_epochs(self, tmp_path: Path) -> None:
        """Every epoch's checkpoint, and the copy that is called last, each from one trace."""
        export = each_checkpoint()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_last=True)
        trainer(tmp_path, saver, export, max_epochs=3).fit(Regression(), datamodule=Data())
        assert_complete(tmp_path, export)
        assert stems(tmp_path, ".ckpt") == {"epoch=0", "epoch=1", "epoch=2", "last"}
        assert (tmp_path / "last.windows.ep").samefile(tmp_path / "epoch=2.windows.ep")

    def test_dropped(self, tmp_path: Path) -> None:
        """With save_top_k the artifact of a checkpoint that is dropped goes as well, and nothing else does."""
        (tmp_path / "epoch=0.notes.txt").write_text("mine")
        (tmp_path / "epoch=1.windows.ep").write_text("not an artifact")
        export = each_checkpoint()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", monitor="val_loss", save_top_k=1)
        trainer(tmp_path, saver, export, max_epochs=4).fit(Regression(), datamodule=Data())
        kept = stems(tmp_path, ".ckpt")
        assert len(kept) == 1
        assert stems(tmp_path, ".windows.json") == kept
        assert (tmp_path / "epoch=0.notes.txt").read_text() == "mine"
        assert [a.path.name for a in export.artifacts] == [f"{name}.windows.ep" for name in kept]

    def test_dropped_and_kept(self, tmp_path: Path) -> None:
        """keep_dropped keeps them all."""
        export = each_checkpoint(keep_dropped=True)
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=1)
        trainer(tmp_path, saver, export, max_epochs=3).fit(Regression(), datamodule=Data())
        assert stems(tmp_path, ".windows.json") == {"epoch=0", "epoch=1", "epoch=2"}
        assert stems(tmp_path, ".ckpt") == {"epoch=2"}

    def test_several_savers_and_a_link(self, tmp_path: Path) -> None:
        """Several ModelCheckpoints, versioned names, a link called last, and a checkpoint saved by hand."""

        class ByHand(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                trainer.save_checkpoint(tmp_path / f"mine-{trainer.current_epoch}.ckpt", weights_only=True)

        (tmp_path / "a.ckpt").write_bytes(b"of somebody else")
        savers = [
            ModelCheckpoint(tmp_path, filename="a", save_top_k=1, save_last="link"),
            ModelCheckpoint(tmp_path, filename="step-{step}", every_n_train_steps=4, save_top_k=-1),
        ]
        export = each_checkpoint()
        trainer(tmp_path, *savers, export, ByHand(), max_epochs=2).fit(Regression(), datamodule=Data())
        (tmp_path / "a.ckpt").unlink()
        assert stems(tmp_path, ".ckpt") >= {"a-v1", "step-step=4", "step-step=8", "mine-0", "mine-1"}
        assert_complete(tmp_path, export)

    def test_written_later(self, tmp_path: Path) -> None:
        """With AsyncCheckpointIO the file appears after the hook has returned."""

        class Slow(AsyncCheckpointIO):
            def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
                self._ensure_setup()
                self._executor.submit(time.sleep, 0.3)  # type: ignore[union-attr]
                super().save_checkpoint(*args, **kwargs)

        export = each_checkpoint()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer(tmp_path, saver, export, max_epochs=3, plugins=[Slow()]).fit(Regression(), datamodule=Data())
        assert stems(tmp_path, ".ckpt") == {"epoch=0", "epoch=1", "epoch=2"}
        assert_complete(tmp_path, export)

    def test_averaged_weights(self, tmp_path: Path) -> None:
        """The weights are those in the file, in the first trace and in its later uses."""
        averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="since Lightning 2.6")
        export = each_checkpoint()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer(tmp_path, averaging.WeightAveraging(), saver, export, max_epochs=3).fit(Regression(), datamodule=Data())
        assert_complete(tmp_path, export)
        later = tmp_path / "later"
        later.mkdir()
        for artifact in export.artifacts:
            name = artifact.path.name.replace(".windows.ep", ".ckpt")
            again = export_checkpoint(
                tmp_path / name, Regression, inputs=export.options.inputs, datamodule=Data(), output=later
            )
            assert again.manifest.engines == artifact.manifest.engines

    def test_weights_that_need_the_module(self, tmp_path: Path) -> None:
        """A module that stores its weights under other names loads them itself, for every checkpoint."""

        class Renamed(Regression):
            def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
                checkpoint["state_dict"] = {f"old.{k}": v for k, v in checkpoint["state_dict"].items()}

            def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
                plain = {k.removeprefix("old."): v for k, v in state_dict.items()}
                return super().load_state_dict(plain, *args, **kwargs)

        export = each_checkpoint()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer(tmp_path, saver, export, max_epochs=2).fit(Renamed(), datamodule=Data())
        assert_complete(tmp_path, export)
        assert len({a.manifest.engines[0].sha256 for a in export.artifacts}) == 2

    def test_an_attribute_that_changes(self, tmp_path: Path) -> None:
        """A number that training changes and forward uses is in each artifact as it was then."""

        class Annealed(Regression):
            temperature = 1.0

            def on_train_epoch_start(self) -> None:
                self.temperature = 1.0 / (1 + self.current_epoch)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) * self.temperature

        export = each_checkpoint()
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        trainer(tmp_path, saver, export, max_epochs=2).fit(Annealed(), datamodule=Data())
        assert_complete(tmp_path, export)
        requests = {a.manifest.backend.options["request"] for a in export.artifacts}
        assert len(requests) == 2

    def test_resumed(self, tmp_path: Path) -> None:
        """A resumed run completes what the first one lacks, and drops what is dropped later."""
        data = Data()
        options: dict[str, Any] = {"filename": "{epoch}", "monitor": "val_loss", "save_top_k": 2}
        export = each_checkpoint()
        trainer(tmp_path, ModelCheckpoint(tmp_path, **options), export, max_epochs=2).fit(Regression(), datamodule=data)
        assert_complete(tmp_path, export)
        (tmp_path / "epoch=0.windows.json").unlink()
        untouched = (tmp_path / "epoch=1.windows.ep").stat().st_mtime_ns
        again = each_checkpoint()
        second = trainer(tmp_path, ModelCheckpoint(tmp_path, **options), again, max_epochs=3)
        second.fit(Regression(), datamodule=data, ckpt_path=tmp_path / "epoch=1.ckpt")
        assert stems(tmp_path, ".windows.json") == stems(tmp_path, ".ckpt")
        for artifact in again.artifacts:
            check_artifact(artifact)
        if "epoch=1" in stems(tmp_path, ".ckpt"):
            assert (tmp_path / "epoch=1.windows.ep").stat().st_mtime_ns == untouched

    def test_renamed(self, tmp_path: Path) -> None:
        """A run whose directory has another name now is resumed there, and what it has is left as it is."""
        data, options = Data(), {"filename": "{epoch}", "save_top_k": -1}
        before, now = tmp_path / "before", tmp_path / "now"
        trainer(before, ModelCheckpoint(before, **options), each_checkpoint(), max_epochs=2).fit(Regression(), data)
        before.rename(now)
        untouched = {path: path.stat().st_mtime_ns for path in now.glob("*.windows.ep")}
        export = each_checkpoint()
        run = trainer(now, ModelCheckpoint(now, **options), export, max_epochs=3)
        run.fit(Regression(), data, ckpt_path=now / "epoch=1.ckpt")
        assert_complete(now, export)
        assert stems(now, ".ckpt") == {"epoch=0", "epoch=1", "epoch=2"}
        assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
        assert not before.exists()

    def test_an_artifact_of_other_weights(self, tmp_path: Path) -> None:
        """What stands beside a checkpoint and is not of its bytes is built again."""
        data, options = Data(), {"filename": "{epoch}", "save_top_k": -1}
        trainer(tmp_path, ModelCheckpoint(tmp_path, **options), each_checkpoint(), max_epochs=2).fit(Regression(), data)
        (tmp_path / "epoch=0.ckpt").write_bytes((tmp_path / "epoch=1.ckpt").read_bytes())
        export = each_checkpoint()
        run = trainer(tmp_path, ModelCheckpoint(tmp_path, **options), export, max_epochs=3)
        run.fit(Regression(), data, ckpt_path=tmp_path / "epoch=1.ckpt")
        assert_complete(tmp_path, export)

    def test_saved_inside_a_step(self, tmp_path: Path) -> None:
        """A checkpoint that is saved under autocast or in validation is captured as any other."""

        class Saving(Regression):
            def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
                if batch_idx == 2:
                    self.trainer.save_checkpoint(tmp_path / f"train-{self.current_epoch}.ckpt")
                return super().training_step(batch, batch_idx)

            def validation_step(self, batch: Any, batch_idx: int) -> None:
                if batch_idx == 2 and not self.trainer.sanity_checking:
                    self.trainer.save_checkpoint(tmp_path / f"val-{self.current_epoch}.ckpt")
                super().validation_step(batch, batch_idx)

        export = each_checkpoint(retrace=True)
        run = trainer(tmp_path, export, max_epochs=1, precision="bf16-mixed", enable_checkpointing=False)
        run.fit(Saving(), datamodule=Data())
        assert stems(tmp_path, ".ckpt") == {"train-0", "val-0"}
        assert_complete(tmp_path, export)
        assert {o.dtype for a in export.artifacts for o in a.manifest.outputs} == {"float32"}


class TestEndings:
    """artifacts and failures are true, however a run ends."""

    def test_exception(self, tmp_path: Path) -> None:
        """A run that fails has the artifacts of what it saved, that of OnExceptionCheckpoint included."""

        class Broken(Regression):
            def on_train_epoch_end(self) -> None:
                if self.current_epoch == 1:
                    raise RuntimeError("out of coffee")

        export = each_checkpoint()
        callbacks = [ModelCheckpoint(tmp_path, filename="{epoch}"), OnExceptionCheckpoint(tmp_path), export]
        run = trainer(tmp_path, *callbacks, max_epochs=3)
        with pytest.raises(RuntimeError, match="out of coffee"):
            run.fit(Broken(), datamodule=Data())
        assert stems(tmp_path, ".ckpt") == {"epoch=0", "on_exception"}
        assert_complete(tmp_path, export)
        assert "save_checkpoint" not in vars(run.strategy.checkpoint_io)

    def test_interrupted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl+C ends the builds: what is not finished is a failure that says how to make up for it."""

        class Interrupted(Regression):
            def on_train_epoch_start(self) -> None:
                if self.current_epoch == 2:
                    raise KeyboardInterrupt

        monkeypatch.setattr(pending, "build", building.hang)
        export = each_checkpoint(executor="process")
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        before = signal.getsignal(signal.SIGINT)
        started = time.monotonic()
        with pytest.warns(UserWarning, match="lightning-trt-windows export"), pytest.raises(SystemExit):
            trainer(tmp_path, saver, export, max_epochs=5).fit(Interrupted(), datamodule=Data())
        signal.signal(signal.SIGINT, before)
        assert time.monotonic() - started < 60
        assert {f.checkpoint for f in export.failures} == {tmp_path / "epoch=0.ckpt", tmp_path / "epoch=1.ckpt"}
        assert all(isinstance(f.error, CompileError) for f in export.failures)
        assert {p.name for p in tmp_path.iterdir()} == {"epoch=0.ckpt", "epoch=1.ckpt"}

    def test_terminated(self, tmp_path: Path) -> None:
        """SIGTERM, as clusters send it, ends training and builds, and nothing half is left."""

        class Terminated(Regression):
            def on_train_epoch_start(self) -> None:
                if self.current_epoch == 2:
                    os.kill(os.getpid(), signal.SIGTERM)

        others = set(psutil.Process().children())  # a server of other tests
        export = each_checkpoint(executor="process")
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        with pytest.warns(UserWarning, match="lightning-trt-windows export"), pytest.raises(SIGTERMException):
            trainer(tmp_path, saver, export, max_epochs=5).fit(Terminated(), datamodule=Data())
        assert set(psutil.Process().children()) <= others
        made = {a.manifest.checkpoint.file for a in export.artifacts if a.manifest.checkpoint}
        assert made | {f.checkpoint.name for f in export.failures if f.checkpoint} == {"epoch=0.ckpt", "epoch=1.ckpt"}
        assert stems(tmp_path, ".windows.json") == {name.removesuffix(".ckpt") for name in made}
        assert not list(tmp_path.glob(".lightning-trt-windows-*"))

    def test_a_build_that_dies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Training goes on, and the failure names the log."""
        monkeypatch.setattr(pending, "build", building.crash)
        export = each_checkpoint(executor="process")
        run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export, max_epochs=1)
        with pytest.warns(UserWarning, match="SIGSEGV"):
            run.fit(Regression(), datamodule=Data())
        (failure,) = export.failures
        assert failure.checkpoint == tmp_path / "a.ckpt"
        assert "about to fall" in (tmp_path / "a.windows.failed" / "log.txt").read_text()
        assert run.state.finished

    def test_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        """A write that fails half way is a failure, nothing is left of it, and training is unharmed."""
        export = each_checkpoint()
        run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export, max_epochs=1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))  # more than a checkpoint, less than an .ep
        try:
            with pytest.warns(UserWarning, match=r"OutputError: cannot write .*a\.windows\.ep"):
                run.fit(Regression(), datamodule=Data())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [f.checkpoint for f in export.failures] == [tmp_path / "a.ckpt"]
        assert {p.name for p in tmp_path.iterdir()} == {"a.ckpt"}
        assert run.state.finished


class TestTrainingUnchanged:
    """Training with the callback is training without it."""

    @pytest.mark.parametrize("executor", ["inline", "process", "pool"])
    def test_bit_for_bit(self, tmp_path: Path, executor: str) -> None:
        """Weights, optimizer and random states, with when="checkpoint" and with each executor."""
        given: Any = ProcessPoolExecutor(2, get_context("spawn")) if executor == "pool" else executor
        export = each_checkpoint(executor=given)
        assert_complete(assert_unchanged(tmp_path, export), export)
        assert len(export.artifacts) == 2
        if executor == "pool":
            given.shutdown()


def test_threads_are_refused() -> None:
    """Builds in threads would draw from the training's random numbers."""
    with pytest.raises(ConfigurationError, match="random numbers"):
        WindowsExport(executor=ThreadPoolExecutor(1))


@pytest.mark.parametrize("executor", ["process", "inline", Inline()], ids=["process", "inline", "object"])
def test_weights_stay_in_the_file_in_other_processes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: Any
) -> None:
    """Whoever writes into a mapped file ends the process that reads it, and this one trains."""
    mapped: list[bool] = []
    monkeypatch.setattr(pending.Builds, "add", lambda self, checkpoint, job: mapped.append(job.is_mapped))
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    export = WindowsExport(when="checkpoint", executor=executor)
    trainer(tmp_path, saver, export, max_epochs=1).fit(Regression(), datamodule=Data())
    assert mapped == [executor == "process"]
