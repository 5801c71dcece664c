"""Files are noticed by a CheckpointIO that wraps the strategy's, whoever else wraps it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.io import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.training.checkpoint_watch import CheckpointWatch
from lightning_trt_windows.training.guard import Guard

MOMENT = Snapshot(3, ShapeDiscoveryError("nothing was seen"), "like this")


class Foreign(CheckpointIO):
    """A wrapper of somebody else, which comes after ours."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.inner.save_checkpoint(*args, **kwargs)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.load_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.inner.remove_checkpoint(*args, **kwargs)


class Mine(TorchCheckpointIO):
    """A CheckpointIO of a project, with an attribute that others read."""

    setting = "fast"


def strategy(checkpoint_io: Any) -> Any:
    """A strategy that saves with ``checkpoint_io``."""
    made = SingleDeviceStrategy(torch.device("cpu"), checkpoint_io=checkpoint_io)
    made.checkpoint_io  # noqa: B018 -- gives a wrapping one its inner one
    return made


def watch(**hooks: Any) -> CheckpointWatch:
    """One whose failures fail the test."""

    def fails(checkpoint: Any, error: Exception) -> None:
        raise AssertionError from error

    nothing = lambda: None  # noqa: E731
    return CheckpointWatch(
        Guard(fails), lambda written: MOMENT, hooks.get("saved", nothing), hooks.get("closed", nothing)
    )


def test_written_and_removed(tmp_path: Path) -> None:
    """Each path once, with the moment of its last writing, in order; afterwards the strategy is as it was."""
    own = Mine()
    trained, looked = strategy(own), []
    watched = watch(saved=lambda: looked.append(1))
    watched.attach(trained)
    assert isinstance(trained.checkpoint_io, CheckpointIO)
    assert trained.checkpoint_io.setting == "fast"
    for name in ("a", "b", "a"):
        trained.checkpoint_io.save_checkpoint({"it": name}, tmp_path / f"{name}.ckpt")
    trained.checkpoint_io.remove_checkpoint(tmp_path / "b.ckpt")
    assert trained.checkpoint_io.load_checkpoint(tmp_path / "a.ckpt") == {"it": "a"}
    assert watched.events() == [(tmp_path / "a.ckpt", MOMENT), (tmp_path / "b.ckpt", None)]
    assert watched.events() == []
    assert len(looked) == 3
    watched.detach()
    assert trained.checkpoint_io is own


def test_two_of_them(tmp_path: Path) -> None:
    """Both notice, and whichever ends first, nothing of them stays."""
    for first, second in ((0, 1), (1, 0)):
        own = Mine()
        trained = strategy(own)
        both = [watch(), watch()]
        for each in both:
            each.attach(trained)
        trained.checkpoint_io.save_checkpoint({}, tmp_path / "a.ckpt")
        assert [len(each.events()) for each in both] == [1, 1]
        both[first].detach()
        trained.checkpoint_io.save_checkpoint({}, tmp_path / "a.ckpt")
        assert [len(both[i].events()) for i in (first, second)] == [0, 1]
        both[second].detach()
        assert trained.checkpoint_io is own


def test_a_foreign_one_around_it(tmp_path: Path) -> None:
    """It stays where its owner has put it; ours passes on, and a later fit does not pile another one on it."""
    trained = strategy(Mine())
    watched = watch()
    watched.attach(trained)
    trained.checkpoint_io = foreign = Foreign(trained.checkpoint_io)
    trained.checkpoint_io.save_checkpoint({}, tmp_path / "a.ckpt")
    assert len(watched.events()) == 1
    watched.detach()
    assert trained.checkpoint_io is foreign
    trained.checkpoint_io.save_checkpoint({}, tmp_path / "b.ckpt")
    assert watched.events() == []
    assert (tmp_path / "b.ckpt").exists()


def test_written_later(tmp_path: Path) -> None:
    """The moment is that of the call, the event comes when the file is there."""

    class Slow(AsyncCheckpointIO):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            self._ensure_setup()
            self._executor.submit(time.sleep, 0.3)  # type: ignore[union-attr]
            super().save_checkpoint(*args, **kwargs)

    trained, closed = strategy(Slow()), []
    watched = watch(closed=lambda: closed.append(1))
    watched.attach(trained)
    assert watched.writes_later
    trained.checkpoint_io.save_checkpoint({}, tmp_path / "a.ckpt")
    assert watched.events() == []
    trained.checkpoint_io.teardown()
    assert watched.events() == [(tmp_path / "a.ckpt", MOMENT.past())]
    assert closed == [1]


def test_a_checkpoint_is_not_lost(tmp_path: Path) -> None:
    """What fails here fails after the file has been written, and reaches nobody."""
    trained, failures = strategy(Mine()), []
    guard = Guard(lambda checkpoint, error: failures.append(error))

    def fails(written: Any) -> Snapshot:
        raise MemoryError("no moment")

    watched = CheckpointWatch(guard, fails, lambda: None, lambda: None)
    watched.attach(trained)
    trained.checkpoint_io.save_checkpoint({}, tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").exists()
    assert [str(error) for error in failures] == ["no moment"]


def test_an_error_of_the_writer_is_its_own(tmp_path: Path) -> None:
    """A disk that is full is not ours to hide."""
    trained = strategy(Mine())
    watched = watch()
    watched.attach(trained)
    with pytest.raises(OSError, match="missing"):
        trained.checkpoint_io.save_checkpoint({}, "/proc/missing/a.ckpt")
    assert watched.events() == []
