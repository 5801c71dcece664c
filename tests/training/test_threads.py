"""Several trainings in threads of one process, as of Optuna's ``n_jobs=3``: none may be harmed by another's exports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Regression, trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_trt_windows import WindowsExport, export_checkpoint
from lightning_trt_windows.modules.alone import others

MANY = 3
SECONDS = 300


class Trial(Regression):
    """Nothing in it is random, so that threads do not take numbers from each other."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__(width, lr)
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
        for index, parameter in enumerate(self.net.parameters()):
            nn.init.constant_(parameter, 0.1 * (index + 1))
        self.together: Callable[[], Any] = lambda: None

    def on_train_start(self) -> None:
        self.together()

    def on_train_epoch_end(self) -> None:
        self.log("epoch", float(self.current_epoch))
        if self.current_epoch == self.trainer.max_epochs - 1:
            self.together()


def rows() -> Any:
    """Batches, always the same."""
    x = torch.arange(160.0).reshape(40, 4) / 160
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 8)


def in_threads(actions: list[Callable[[], None]]) -> list[BaseException]:
    """Run all at a time; what ended them."""
    errors: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def train(folder: Path, module: Trial, *callbacks: Any, epochs: int = 6) -> None:
    """A short training with a checkpoint in the midst of it, and one at its end."""
    saver = ModelCheckpoint(folder, filename="{epoch}", every_n_epochs=3, save_top_k=-1)
    run = trainer(folder, saver, *callbacks, max_epochs=epochs, enable_checkpointing=True)
    run.fit(module, rows(), rows())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("when", ["checkpoint", "train_end"])
def test_trainings_at_the_same_time_are_untouched(tmp_path: Path, when: Any) -> None:
    """What cannot be exported meanwhile is a failure that says how to export it, and that works."""
    plain = Trial()
    train(tmp_path / "plain", plain)
    modules = [Trial() for _ in range(MANY)]
    exports = [WindowsExport(when=when, executor="inline") for _ in modules]
    barrier = threading.Barrier(MANY)
    for module in modules:
        module.together = lambda: barrier.wait(SECONDS)
    folders = [tmp_path / str(index) for index in range(MANY)]

    errors = in_threads([lambda t=t: train(*t) for t in zip(folders, modules, exports)])  # type: ignore[misc]

    assert errors == []
    assert not torch.compiler.is_compiling() and torch.is_grad_enabled()
    for module in modules:
        assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), plain.state_dict().values()))
    for export in exports:
        assert len(export.artifacts) + len(export.failures) >= 1
        for failure in export.failures:
            assert "active in this process (in Thread-" in str(failure)
            assert "lightning-trt-windows export CHECKPOINT --module package.module:Class" in str(failure)
        if when == "checkpoint":
            # at the first one all three were at work
            assert any("epoch=2.ckpt" in str(f) and "2 other trainings are" in str(f) for f in export.failures)
    assert others() == []
    assert export_checkpoint(folders[0] / "epoch=2.ckpt", Trial).path.exists()


@pytest.mark.filterwarnings("ignore")
def test_trainings_in_threads_one_after_the_other(tmp_path: Path) -> None:
    """They export as everywhere: also after one that has failed, of which nothing is left."""

    class Failing(Trial):
        def on_train_epoch_end(self) -> None:
            raise ValueError("bad luck")

    assert in_threads([lambda: train(tmp_path / "failing", Failing(), WindowsExport())])
    for index in range(2):
        export = WindowsExport(when="checkpoint", executor="inline")
        assert in_threads([lambda e=export, i=index: train(tmp_path / str(i), Trial(), e, epochs=3)]) == []  # type: ignore[misc]
        assert [a.path.name for a in export.artifacts] == ["epoch=2.windows.ep"] and not export.failures
    assert others() == []


@pytest.mark.filterwarnings("ignore")
def test_a_training_within_a_training(tmp_path: Path) -> None:
    """In a hook of the module, with a callback of its own: both export."""
    inner = WindowsExport()

    class Outer(Trial):
        def on_train_start(self) -> None:
            train(tmp_path / "inner", Trial(), inner, epochs=3)

    outer = WindowsExport(when="checkpoint", executor="inline")
    train(tmp_path / "outer", Outer(), outer, epochs=3)
    assert len(inner.artifacts) == len(outer.artifacts) == 1
    assert not inner.failures and not outer.failures
