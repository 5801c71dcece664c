"""No exception of anyone's reaches a training: every function that a hook reaches is made to fail, one at a time."""

from __future__ import annotations

import itertools
import logging
import shutil
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from support.faults import FAULTS, faulty, reached
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.training.guard import LOG_NAME, Guard, hook

STANDS_IN = {
    "_Recorder.__call__": "stands where the module's forward was, records the call behind a guard, and calls it",
    "_Recorder.__class__": "answers for the method that it stands for",
    "_Recorder.__getattr__": "answers for the method that it stands for",
    "_Watched.save_checkpoint": "calls the CheckpointIO that it wraps, then tells the watch, which guards itself",
    "_Watched.load_checkpoint": "calls the CheckpointIO that it wraps",
    "_Watched.remove_checkpoint": "calls the CheckpointIO that it wraps, then tells the watch, which guards itself",
    "_Watched.teardown": "calls the CheckpointIO that it wraps, then tells the watch, which guards itself",
    "_Watched.__getattr__": "answers for the CheckpointIO that it wraps",
}
"""Functions that are called in place of somebody else's, and do that one's work. Without them there is none."""


class Coffee(Exception):
    """What ends a training that was to fail."""


class Tiny(Regression):
    """Trains for two steps an epoch; ``fails`` at the end of that epoch."""

    fails: int | None = None

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == self.fails:
            raise Coffee

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0])

    test_step = Regression.validation_step


class TinyData(Data):
    """The same samples for every stage."""

    test_dataloader = predict_dataloader = Data.val_dataloader


def at_the_end(folder: Path) -> dict[str, Any]:
    """``when="train_end"``; afterwards validate, test and predict."""
    export = WindowsExport()
    run = trainer(folder, ModelCheckpoint(folder, filename="a", save_last=True), export, **SHORT)
    module, data = Tiny(), TinyData()
    run.fit(module, datamodule=data)
    run.validate(module, datamodule=data, verbose=False)
    run.test(module, datamodule=data, verbose=False)
    run.predict(module, datamodule=data, return_predictions=False)
    return module.state_dict()


def at_every_checkpoint(folder: Path) -> dict[str, Any]:
    """``when="checkpoint"``, with checkpoints that are deleted, a logger, and a copy of the callback."""
    export = WindowsExport(when="checkpoint", executor="inline", golden=True)
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=1, save_last=True)
    run = trainer(folder, saver, export, logger=CSVLogger(folder), **{**SHORT, "max_epochs": 2})
    module = Tiny()
    run.fit(module, datamodule=TinyData())
    return module.state_dict()


def elsewhere(folder: Path) -> dict[str, Any]:
    """Checkpoints on another file system."""
    export = WindowsExport(when="checkpoint", executor="inline")
    saver = ModelCheckpoint(f"memory://{folder.name}", filename="{epoch}", save_top_k=1)
    run = trainer(folder, saver, export, **{**SHORT, "max_epochs": 2})
    module = Tiny()
    run.fit(module, datamodule=TinyData())
    fsspec.filesystem("memory").rm(f"/{folder.name}", recursive=True)
    return module.state_dict()


def failing(folder: Path) -> dict[str, Any]:
    """A training that fails, and its checkpoints."""
    module = Tiny()
    module.fails = 1
    export = WindowsExport(when="checkpoint", executor="inline")
    saver = ModelCheckpoint(folder, filename="{epoch}")
    run = trainer(folder, saver, export, **{**SHORT, "max_epochs": 3})
    with pytest.raises(Coffee):
        run.fit(module, datamodule=TinyData())
    return module.state_dict()


def without_a_checkpoint(folder: Path) -> dict[str, Any]:
    """Nobody saves anything: the final weights are exported."""
    module = Tiny()
    run = trainer(folder, WindowsExport(), enable_checkpointing=False, **SHORT)
    run.fit(module, datamodule=TinyData())
    return module.state_dict()


SHORT = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1}
SCENARIOS = (at_the_end, at_every_checkpoint, elsewhere, failing, without_a_checkpoint)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Thousands of sentences less."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning_utilities", "lightning_trt_windows")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("quiet")
def test_every_function_may_fail(tmp_path: Path) -> None:
    """Each function that any hook reaches raises, with each kind of exception in turn: the same weights come out."""
    kinds = itertools.cycle(FAULTS)
    tried: set[types.FunctionType] = set()
    harmed = []
    for scenario in SCENARIOS:
        expected = outcome(scenario, tmp_path)
        outcome(scenario, tmp_path)  # what is done once only, such as imports, has been done
        for function in reached(lambda: outcome(scenario, tmp_path)):  # noqa: B023 -- it is called here
            if function in tried or function.__qualname__ in STANDS_IN:
                continue
            tried.add(function)
            fault = next(kinds)
            with faulty(function, fault):
                found = outcome(scenario, tmp_path)
            if found != expected:
                name = f"{function.__module__}.{function.__qualname__}"
                harmed.append(f"{scenario.__name__}: {name} ({fault.__name__}): {found}")
    assert len(tried) > 300, "the functions that hooks reach were not found"
    assert not harmed, f"{len(harmed)} of {len(tried)}\n" + "\n".join(harmed)


def outcome(scenario: Callable[[Path], dict[str, Any]], tmp_path: Path) -> str:
    """The weights that a training ends with, as text, or where its exception came from."""
    folder = tmp_path / "run"
    folder.mkdir()
    L.seed_everything(1, verbose=False)
    try:
        weights = scenario(folder)
    except BaseException as error:
        return f"{type(error).__name__}: {error}, by way of " + " ".join(
            f"{Path(f.filename).stem}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-12:]
        )
    finally:
        shutil.rmtree(folder)
    state = torch.get_rng_state()
    return str({key: value.sum().item() for key, value in weights.items()}) + str(hash(state.numpy().tobytes()))


class TestGuard:
    """What a failure becomes."""

    def test_a_failure_and_a_log(self, tmp_path: Path) -> None:
        """An entry, and the traceback in a file."""
        failures: list[Any] = []
        guard = Guard(lambda checkpoint, error: failures.append((checkpoint, error)))
        guard.directory = tmp_path
        with guard("making coffee", tmp_path / "a.ckpt"):
            raise Coffee("none left")
        ((checkpoint, error),) = failures
        assert (checkpoint, str(error)) == (tmp_path / "a.ckpt", "none left")
        log = (tmp_path / LOG_NAME).read_text()
        assert "making coffee" in log
        assert "test_a_failure_and_a_log" in log

    def test_a_listener_that_fails(self, tmp_path: Path) -> None:
        """Nothing leaves, whatever the one does that is told of it."""

        def fails(checkpoint: Any, error: Exception) -> None:
            raise Coffee

        with Guard(fails)("making coffee"):
            raise OSError("no water")

    def test_interruptions_pass(self) -> None:
        """Ctrl+C is not a failure."""
        failures: list[Any] = []
        with pytest.raises(KeyboardInterrupt), Guard(lambda *found: failures.append(found))("waiting"):
            raise KeyboardInterrupt
        assert failures == []

    @pytest.mark.parametrize("on_error", ["warn", "raise"])
    @pytest.mark.parametrize("raises", [False, True])
    def test_hooks(self, on_error: str, raises: bool) -> None:
        """Only the hooks that may, raise, and only where that was asked for."""
        told: list[Any] = []

        class Callback:
            def __init__(self) -> None:
                self.on_error = on_error
                self._guard = Guard(lambda *found: told.append(found))

            @hook(raises=raises)
            def on_something(self) -> None:
                raise Coffee

        if raises and on_error == "raise":
            with pytest.raises(Coffee):
                Callback().on_something()
        else:
            Callback().on_something()
            assert len(told) == 1
