"""When exports begin: at the end of training what is there, afterwards what ModelCheckpoint writes last."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.artifact.files import sha256_of


class Inline(Executor):
    """Builds at once, and keeps the names of what it was given, with the hook in which that was."""

    def __init__(self) -> None:
        self.hook = "before"
        self.given: list[tuple[str, str]] = []

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.given.append((args[0].paths.ep.name, self.hook))
        future.set_result(function(*args))
        return future


class Hooks(Callback):
    """Says where the Trainer is; stands before the export."""

    def __init__(self, executor: Inline) -> None:
        self.executor = executor

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.executor.hook = "on_train_end"

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.executor.hook = "on_fit_end"


def fit(folder: Path, *savers: ModelCheckpoint, **options: Any) -> tuple[Inline, WindowsExport]:
    """Two epochs, with an executor of the user's."""
    executor = Inline()
    export = WindowsExport(executor=executor)
    trainer(folder, *savers, Hooks(executor), export, max_epochs=2, **options).fit(Regression(), datamodule=Data())
    assert export.failures == []
    for artifact in export.artifacts:
        check_artifact(artifact)
        record = artifact.manifest.checkpoint
        assert record is not None
        assert record.sha256 == sha256_of(folder / record.file)
    return executor, export


def test_what_is_there_begins_when_training_ends(tmp_path: Path) -> None:
    """Best and last of each ModelCheckpoint are on disk by then."""
    executor, export = fit(
        tmp_path, ModelCheckpoint(tmp_path, filename="a"), ModelCheckpoint(tmp_path, filename="b", monitor="val_loss")
    )
    assert sorted(executor.given) == [("a.windows.ep", "on_train_end"), ("b.windows.ep", "on_train_end")]
    assert len(export.artifacts) == 2


def test_what_is_written_after_us_follows(tmp_path: Path) -> None:
    """A file that was started and is written again, and one that was not there: both in on_fit_end, and as they are."""

    class Late(ModelCheckpoint):
        """Writes in its own on_train_end, as ModelCheckpoint does with last.ckpt; it comes after all others."""

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.net[0].weight.data.add_(1)
            trainer.save_checkpoint(tmp_path / "late.ckpt")
            trainer.save_checkpoint(tmp_path / "a.ckpt")
            self.last_model_path = str(tmp_path / "late.ckpt")

    executor, export = fit(tmp_path, Late(tmp_path, filename="a"))
    assert executor.given[0] == ("a.windows.ep", "on_train_end")
    assert sorted(executor.given[1:]) == [("a.windows.ep", "on_fit_end"), ("late.windows.ep", "on_fit_end")]
    assert {artifact.path.name for artifact in export.artifacts} == {"a.windows.ep", "late.windows.ep"}


def test_files_of_another_thread_are_waited_for(tmp_path: Path) -> None:
    """With AsyncCheckpointIO a file that is there need not be whole when training ends."""
    executor, _ = fit(tmp_path, ModelCheckpoint(tmp_path, filename="a"), plugins=[AsyncCheckpointIO()])
    assert executor.given == [("a.windows.ep", "on_fit_end")]


def test_a_module_that_is_ready_at_the_very_end(tmp_path: Path) -> None:
    """Its own on_train_end comes after ours: it is tried again when fit has ended, and nothing is a failure."""

    class Late(Regression):
        ready = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not (self.training or self.ready):
                raise ValueError("not ready")
            return super().forward(x)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            return

        def on_train_end(self) -> None:
            self.ready = True

    export = WindowsExport(preflight=False, on_error="raise")
    run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export, max_epochs=1)
    run.fit(Late(), datamodule=Data())
    assert [artifact.path.name for artifact in export.artifacts] == ["a.windows.ep"]


def test_nothing_stays_on_the_strategy(tmp_path: Path) -> None:
    """Neither after a run, nor after the next."""
    export = WindowsExport()
    run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="{epoch}"), export, max_epochs=1)
    own, module = run.strategy.checkpoint_io, Regression()
    run.fit(module, datamodule=Data())
    assert run.strategy.checkpoint_io is own
    assert "forward" not in vars(module)
