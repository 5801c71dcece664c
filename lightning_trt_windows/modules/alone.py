"""One training at a time where PyTorch itself is changed: captures and builds wait for their turn, or are refused.

``torch.export`` and the lowering of its programs change state of PyTorch that all threads of a process share. A step
of a training in another thread that meets it ends with an error of PyTorch's (``KeyError: 'custom'``), and two captures
at a time may leave that state changed for good. So trainings say here when they begin and end, whatever captures or
builds in this process asks for its turn, and a training that is about to begin waits until another thread's turn ends.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from lightning_trt_windows.errors import LightningTrtError

__all__ = ["Running", "alone", "begin", "end", "others"]


class Running(NamedTuple):
    """A Trainer that is at work."""

    thread: threading.Thread
    trainer: weakref.ref[Any]

    @property
    def is_active(self) -> bool:
        """Whether it still is: not where its thread has ended, or its Trainer has, and nobody has told us."""
        trainer = self.trainer()
        if trainer is None or not self.thread.is_alive():
            return False
        status = getattr(getattr(trainer, "state", None), "status", None)
        return status not in ("finished", "interrupted")  # an enum of strings


_TURN = threading.RLock()
"""Who has it captures or builds, or notes that a training begins. A thread that has it may take it again."""
_NOTES = threading.Lock()
"""For the table below, and held for a moment only: a training that ends waits for no turn."""
_RUNNING: dict[int, Running] = {}
"""By the identity of the Trainer: a callback may be on several, and a Trainer may be told of twice."""


def begin(trainer: Any) -> None:
    """The ``trainer`` is about to run in this thread: wait until no other thread captures or builds.

    A training within a training, in the same thread, waits for nothing.
    """
    with _TURN, _NOTES:
        _RUNNING[id(trainer)] = Running(threading.current_thread(), weakref.ref(trainer))


def end(trainer: Any) -> None:
    """The ``trainer`` takes no more steps. May be said more than once."""
    with _NOTES:
        _RUNNING.pop(id(trainer), None)


def others() -> list[str]:
    """Names of the other threads in which a training is active."""
    with _NOTES:
        for key, running in list(_RUNNING.items()):
            if not running.is_active:
                del _RUNNING[key]
        here = threading.current_thread()
        return sorted({running.thread.name for running in _RUNNING.values() if running.thread is not here})


@contextlib.contextmanager
def alone(doing: str, kind: type[LightningTrtError]) -> Iterator[None]:
    """Let nobody else capture, build or begin a training in this process during the block. Blocks may be nested.

    Args:
        doing: What the block does, for the message.
        kind: What is raised.

    Raises:
        LightningTrtError: Of the ``kind``: a training is active in another thread.
    """
    with _TURN:
        if names := others():
            trainings = f"{len(names)} other training{'s are' if len(names) > 1 else ' is'}"
            raise kind(
                f"{doing} takes PyTorch for itself, since torch.export changes what all threads of a process share and "
                f"would end trainings in them; {trainings} active in this process (in {', '.join(names)}). Export the "
                "checkpoint afterwards, with: lightning-trt-windows export CHECKPOINT --module package.module:Class; "
                "or let each training have a process of its own"
            )
        yield


def _after_fork() -> None:
    """Threads do not come along to a child process, and what they held would be held there forever."""
    global _TURN, _NOTES
    _TURN, _NOTES = threading.RLock(), threading.Lock()
    _RUNNING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
