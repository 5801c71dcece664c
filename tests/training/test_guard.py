"""No exception of anyone's reaches a training: every function that a hook reaches is made to fail, one at a time."""

from __future__ import annotations

import functools
import logging
import shutil
import signal
import tempfile
import traceback
import types
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
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
from torch.utils import _pytree as pytree

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.builds.executors.process import BuildProcess
from lightning_trt_windows.export.pipeline import build
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
    "_Watched._tell": "is the guard of those above",
    "callbacks": "is asked by the constructor of every Trainer, before there is a training",
}
"""Functions that are called in place of somebody else's, and do that one's work. Without them there is none."""


LONGEST = 180
"""Seconds after which a training is said to wait forever; the longest takes 10."""


class CoffeeError(Exception):
    """What ends a training that was to fail."""


class WaitsForeverError(BaseException):
    """A training that does not end. Not an ``Exception``, which would be taken for one of ours and kept from it."""


class Tiny(Regression):
    """Trains for two steps an epoch; ``fails`` at the end of that epoch."""

    fails: int | None = None

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == self.fails:
            raise CoffeeError

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0])

    test_step = Regression.validation_step


@dataclass(frozen=True)
class Scenario:
    """A training, and the callback that it has."""

    settings: Mapping[str, Any]
    train: Callable[[Path, Tiny, WindowsExport], None]
    executor: Callable[[], Any] | None = None
    """Makes one for each run."""

    def __str__(self) -> str:
        return self.train.__name__


def at_the_end(folder: Path, module: Tiny, export: WindowsExport) -> None:
    """The best and the last; afterwards validate, test and predict."""
    run = trainer(folder, ModelCheckpoint(folder, filename="a", save_last=True), export, **SHORT)
    data = Data()
    run.fit(module, datamodule=data)
    run.validate(module, datamodule=data, verbose=False)
    run.test(module, data.val_dataloader(), verbose=False)
    run.predict(module, data.val_dataloader(), return_predictions=False)


def at_every_checkpoint(folder: Path, module: Tiny, export: WindowsExport) -> None:
    """Checkpoints that are deleted, and a logger; then the training is resumed."""
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=1, save_last=True)
    data = Data()
    run = trainer(folder, saver, export, logger=CSVLogger(folder), **{**SHORT, "max_epochs": 2})
    run.fit(module, datamodule=data)
    again = trainer(folder, ModelCheckpoint(folder, filename="{epoch}"), export, **{**SHORT, "max_epochs": 3})
    again.fit(module, datamodule=data, ckpt_path=folder / "last.ckpt")


def elsewhere(folder: Path, module: Tiny, export: WindowsExport) -> None:
    """Checkpoints on another file system."""
    saver = ModelCheckpoint(f"memory://{folder.name}", filename="{epoch}", save_top_k=1)
    try:
        trainer(folder, saver, export, **{**SHORT, "max_epochs": 2}).fit(module, datamodule=Data())
    finally:
        fsspec.filesystem("memory").rm(f"/{folder.name}", recursive=True)


def in_a_process(folder: Path, module: Tiny, export: WindowsExport) -> None:
    """A checkpoint that another process builds, as it is by default."""
    trainer(folder, ModelCheckpoint(folder, filename="{epoch}"), export, **SHORT).fit(module, datamodule=Data())


def failing(folder: Path, module: Tiny, export: WindowsExport) -> None:
    """A training that fails, and its checkpoints."""
    module.fails = 1
    run = trainer(folder, ModelCheckpoint(folder, filename="{epoch}"), export, **{**SHORT, "max_epochs": 3})
    with pytest.raises(CoffeeError):
        run.fit(module, datamodule=Data())


def without_a_checkpoint(folder: Path, module: Tiny, export: WindowsExport) -> None:
    """Nobody saves anything: the final weights are exported."""
    trainer(folder, export, enable_checkpointing=False, **SHORT).fit(module, datamodule=Data())


SHORT = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1}
EACH = {"when": "checkpoint", "executor": "inline"}
SCENARIOS = (
    Scenario({"preflight": False}, at_the_end),
    Scenario({}, without_a_checkpoint),
    Scenario({**EACH, "golden": True}, at_every_checkpoint),
    Scenario(EACH, elsewhere),
    Scenario(EACH, failing),
)
# of normal priority: a busy machine would starve the builds
IN_A_PROCESS = Scenario({"when": "checkpoint"}, in_a_process, lambda: BuildProcess(niceness=0))
"""Takes seconds for each function, and goes with the tests that take minutes."""
HOOKS = {
    method.__wrapped__
    for cls in WindowsExport.__mro__
    for method in vars(cls).values()
    if isinstance(method, types.FunctionType) and hasattr(method, "__wrapped__")
}
"""What the Trainer calls: the methods that are decorated with ``hook``."""


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
@pytest.mark.parametrize("shift", [0, *(pytest.param(n, marks=pytest.mark.processes) for n in range(1, len(FAULTS)))])
@pytest.mark.parametrize(
    "where", ["training", *(pytest.param(where, marks=pytest.mark.processes) for where in ("below", "builds"))]
)
def test_every_function_may_fail(where: str, shift: int, tmp_path: Path) -> None:
    """Each function that a hook reaches raises, the four kinds of exceptions in four runs: the same weights come out.

    Those of the room ``training``, which stand between hooks and the rest, are tried with one kind in every run of the
    tests; with the others, what hooks reach below, and what only builds reach, with the tests that take minutes.
    """
    tried: set[types.FunctionType] = set()
    harmed = []
    for scenario in SCENARIOS if where == "training" else (*SCENARIOS, IN_A_PROCESS):
        expected = outcome(scenario, tmp_path)
        assert "by way of" not in expected
        found: list[Any] = []
        looked_at = outcome(scenario, tmp_path, around=lambda train: found.extend(reached(train, build)))  # noqa: B023
        assert looked_at == expected
        for function in found[1] if where == "builds" else found[0]:
            room = "training" if ".training." in function.__module__ else "below"
            if function in tried or function.__qualname__ in STANDS_IN or where not in (room, "builds"):
                continue
            tried.add(function)
            # each function has another kind in each run
            fault = FAULTS[(zlib.crc32(function.__qualname__.encode()) + shift) % len(FAULTS)]
            result = outcome(scenario, tmp_path, around=functools.partial(with_fault, function, fault))
            if result != expected:
                name = f"{function.__module__}.{function.__qualname__}"
                harmed.append(f"{scenario}: {name} ({fault.__name__}): {result}")
    assert len(tried) > 50, "the functions that hooks reach were not found"
    if where == "training":
        assert HOOKS
        assert not HOOKS - tried, "hooks that no scenario calls"
    assert not harmed, f"{len(harmed)} of {len(tried)}\n" + "\n".join(harmed)


def with_fault(function: types.FunctionType, fault: type[Exception], train: Callable[[], None]) -> None:
    """Train while ``function`` raises."""
    with faulty(function, fault):
        train()


def outcome(
    scenario: Scenario, tmp_path: Path, around: Callable[[Callable[[], None]], None] = lambda train: train()
) -> str:
    """The weights and random state that a training ends with, or where its exception came from."""
    folder = tmp_path / "run"
    folder.mkdir()
    L.seed_everything(1, verbose=False)
    executor = {"executor": scenario.executor()} if scenario.executor else {}
    module, export = Tiny(), WindowsExport(**scenario.settings, **executor)
    signal.signal(signal.SIGALRM, waits_forever)
    signal.alarm(LONGEST)
    try:
        around(lambda: scenario.train(folder, module, export))
    except BaseException as error:
        places = [f"{Path(f.filename).stem}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        return f"{type(error).__name__}: {error}, by way of {' '.join(places[-12:])}"
    finally:
        signal.alarm(0)
        shutil.rmtree(folder)
    weights = {key: value.sum().item() for key, value in module.state_dict().items()}
    return f"{weights}, {hash(torch.get_rng_state().numpy().tobytes())}"


def waits_forever(number: int, frame: Any) -> None:
    """End a training."""
    raise WaitsForeverError


class TestGuard:
    """What a failure becomes."""

    def test_a_failure_and_a_log(self, tmp_path: Path) -> None:
        """An entry, and the traceback in a file."""
        failures: list[Any] = []
        guard = Guard(lambda checkpoint, error: failures.append((checkpoint, error)))
        guard.directory = tmp_path
        with guard("making coffee", tmp_path / "a.ckpt"):
            raise CoffeeError("none left")
        ((checkpoint, error),) = failures
        assert (checkpoint, str(error)) == (tmp_path / "a.ckpt", "none left")
        log = (tmp_path / LOG_NAME).read_text()
        assert "making coffee" in log
        assert "test_a_failure_and_a_log" in log

    def test_what_fails_in_every_step(self, tmp_path: Path) -> None:
        """One entry and one traceback, until another run begins."""
        failures: list[Any] = []
        guard = Guard(lambda checkpoint, error: failures.append(error))
        guard.directory = tmp_path
        for _ in range(3):
            with guard("making coffee"):
                raise CoffeeError("none left")
        assert len(failures) == 1
        assert (tmp_path / LOG_NAME).read_text().count("Traceback") == 1
        guard.begin()
        with guard("making coffee"):
            raise CoffeeError("none left")
        assert len(failures) == 2

    def test_a_listener_that_fails(self, tmp_path: Path) -> None:
        """Nothing leaves, whatever the one does that is told of it."""

        def fails(checkpoint: Any, error: Exception) -> None:
            raise CoffeeError

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
                raise CoffeeError

        if raises and on_error == "raise":
            with pytest.raises(CoffeeError):
                Callback().on_something()
        else:
            Callback().on_something()
            assert len(told) == 1


class Checked:
    """A field that takes tensors only."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, instance: Any, owner: type) -> Any:
        return None if instance is None else getattr(instance, self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"expected a tensor, got {type(value)}")
        setattr(instance, self.name, value)


@dataclass
class Validating:
    """A batch whose fields check what they are given."""

    image: Any = Checked()


@dataclass
class Registered:
    """A batch whose project has registered it with pytree, without names of its fields."""

    image: torch.Tensor
    target: torch.Tensor


pytree.register_pytree_node(
    Registered,
    lambda value: ([value.image, value.target], None),
    lambda tensors, _: Registered(*tensors),
    serialized_type_name="tests.training.Registered",
)


class Whole(Tiny):
    """Hands a batch to forward as it is."""

    def __init__(self, kind: type[Any]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, batch: Any) -> torch.Tensor:  # type: ignore[override]
        return self.net(batch.image)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return (self(self.kind(x) if self.kind is Validating else self.kind(x, y)) - y).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)


class Refuses(Executor):
    """A pool whose workers have died."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        raise BrokenProcessPool("a child process terminated abruptly")


@pytest.mark.filterwarnings("ignore")
class TestSeenInProjects:
    """What ended trainings of public projects is a failure at most."""

    @pytest.mark.parametrize("kind", [Validating, Registered])
    def test_batches(self, tmp_path: Path, kind: type[Any]) -> None:
        """Classes of batches that raise when anybody else touches them."""
        export = WindowsExport()
        run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export, **SHORT)
        run.fit(Whole(kind), datamodule=Data())
        assert run.state.finished
        assert len(export.artifacts) + len(export.failures) == 1

    def test_a_pool_that_is_broken(self, tmp_path: Path) -> None:
        """Each checkpoint has its failure, and the training goes on."""
        export = WindowsExport(when="checkpoint", executor=Refuses())
        saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        run = trainer(tmp_path, saver, export, **{**SHORT, "max_epochs": 3})
        run.fit(Tiny(), datamodule=Data())
        assert run.state.finished
        assert [type(failure.error) for failure in export.failures] == [BrokenProcessPool] * 3
        assert {f.checkpoint.name for f in export.failures if f.checkpoint} == {f"epoch={n}.ckpt" for n in range(3)}

    def test_no_room_for_copies_of_remote_checkpoints(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The directory for them cannot be made."""
        export = WindowsExport(when="checkpoint", executor="inline")
        saver = ModelCheckpoint(f"memory://{tmp_path.name}", filename="{epoch}")
        run = trainer(tmp_path, saver, export, **SHORT)
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
        run.fit(Tiny(), datamodule=Data())
        assert run.state.finished
        assert {type(failure.error) for failure in export.failures} == {FileNotFoundError}
        assert "epoch=0.ckpt" in [f.checkpoint.name for f in export.failures if f.checkpoint]
        assert "test_guard" not in (tmp_path / LOG_NAME).read_text()

    def test_not_yet(self, tmp_path: Path) -> None:
        """A module that is ready for inference at the end of its training only, with on_error="raise"."""

        class Bank(Tiny):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("bank", torch.empty(0, 1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found = super().forward(x)
                if self.training:
                    return found
                if self.bank.numel() == 0:
                    raise ValueError("the bank is empty")
                return torch.cdist(found, self.bank).amin(1)

            def validation_step(self, batch: Any, batch_idx: int) -> None:
                return

            def on_train_epoch_end(self) -> None:
                self.bank = torch.ones(3, 1)

        export = WindowsExport(on_error="raise")
        trainer(tmp_path, ModelCheckpoint(tmp_path, filename="a"), export, **SHORT).fit(Bank(), datamodule=Data())
        assert len(export.artifacts) == 1
