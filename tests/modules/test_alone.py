"""Turns of those that change what all threads of a process share in PyTorch."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_trt_windows.errors import CaptureError, CompileError
from lightning_trt_windows.modules.alone import alone, begin, end, others

SECONDS = 20


class Trainer:
    """The least of one."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(status="running")


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    """A Trainer that runs."""
    running = Trainer()
    yield running
    end(running)


def elsewhere(action: Callable[[], Any]) -> Any:
    """What ``action`` gives in a thread of its own."""
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(action())
        except Exception as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result(SECONDS)


def take_turn() -> bool:
    """Whether this thread may capture."""
    with alone("A capture", CaptureError):
        return True


def test_a_training_in_another_thread_refuses_captures(trainer: Any) -> None:
    """What was wanted, what was found, and a way on; in its own thread it may capture, also within a capture."""
    begin(trainer)
    with alone("A capture", CaptureError), alone("A build", CompileError):
        assert others() == []
    with pytest.raises(
        CompileError, match=r"^A build takes .* 1 other training is active .*\(in MainThread\).* export CHECKPOINT"
    ):
        elsewhere(lambda: alone("A build", CompileError).__enter__())
    end(trainer)
    end(trainer)
    assert elsewhere(take_turn)


@pytest.mark.parametrize("status", ["finished", "interrupted"])
def test_a_training_that_never_said_that_it_ended(trainer: Any, status: str) -> None:
    """It does not count when its Trainer says so."""
    begin(trainer)
    trainer.state.status = status
    assert elsewhere(take_turn)


def test_a_training_whose_thread_or_trainer_is_gone() -> None:
    """It does not count."""
    kept = Trainer()
    thread = threading.Thread(target=begin, args=(kept,))
    thread.start()
    thread.join(SECONDS)
    begin(Trainer())
    assert others() == [] and elsewhere(take_turn)


def test_a_training_begins_when_the_turn_of_another_thread_has_ended(trainer: Any) -> None:
    """Until then it has not taken a step, and does not stand in the way of whoever has the turn."""
    begun = threading.Event()
    thread = threading.Thread(target=lambda: (begin(trainer), begun.set(), begun.wait(SECONDS)), daemon=True)
    with alone("A capture", CaptureError):
        thread.start()
        assert not begun.wait(0.2)
        with alone("A build", CompileError):
            pass
    assert begun.wait(SECONDS)


def test_a_training_within_a_training(trainer: Any) -> None:
    """In one thread, as of a Tuner: neither waits, and neither is another."""
    inner = Trainer()
    begin(trainer)
    with alone("A capture", CaptureError):
        begin(inner)
        end(inner)
        assert take_turn()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_child_process_has_no_trainings_and_no_turns(trainer: Any) -> None:
    """It was forked while another thread had its turn: that thread is not there to end it."""
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with alone("A capture", CaptureError):
            holds.set()
            done.wait(SECONDS)

    threading.Thread(target=hold, daemon=True).start()
    assert holds.wait(SECONDS)
    child = multiprocessing.get_context("fork").Process(target=take_turn, daemon=True)
    child.start()
    child.join(SECONDS)
    done.set()
    assert child.exitcode == 0
