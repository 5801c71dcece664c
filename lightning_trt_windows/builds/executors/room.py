"""How many builds may run at a time: a number for the machine, and whether another one fits beside those that run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from lightning_trt_windows.builds.executors.memory_limit import memory_taken
from lightning_trt_windows.export.job import Job, SavedProgram

__all__ = ["Room", "default_workers", "processor_cores"]

_CORES_EACH = 8
_MEMORY_EACH = 8_000_000_000
_MOST = 4
_BASE_MEMORY = 2_000_000_000
"""Bytes that a build takes whatever its model is: the imports, and what TensorRT works in."""
_MEMORY_PER_WEIGHT_BYTE = 2.2
"""Peak memory of an export, measured with up to 6 GB of float32 weights; 1 of it are pages of the checkpoint's file."""
_SHARE = 0.8
"""Part of the memory that is available, which builds beside each other may be expected to take."""
_INTERVAL = 1.0
"""Seconds between two looks at whether there is room by now."""


def processor_cores() -> int:
    """Number of processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers() -> int:
    """Number of builds at a time: one for each 8 processor cores and 8 GB of available memory, from 1 to 4."""
    memory = int(psutil.virtual_memory().available) // _MEMORY_EACH
    return max(1, min(processor_cores() // _CORES_EACH, memory, _MOST))


class Room:
    """Lets a build begin beside others when the memory is there that it and they are expected to take."""

    def __init__(self) -> None:
        self._expected: dict[object, int] = {}
        self._processes: dict[object, int] = {}
        self._changed = threading.Condition()

    def enter(self, build: object, job: Job, is_unwanted: Callable[[], bool]) -> None:
        """Wait until there is room for ``job``. The first one always has it.

        Args:
            build: What ``leave`` is called with.
            job: Says how much memory to expect.
            is_unwanted: Ends the wait.
        """
        need = _expected_memory(job)
        with self._changed:
            while self._expected and need > self._free() and not is_unwanted():
                self._changed.wait(_INTERVAL)
            self._expected[build] = need

    def runs_in(self, build: object, pid: int) -> None:
        """Say in which process ``build`` runs: what that has taken is not expected any more."""
        with self._changed:
            self._processes[build] = pid

    def leave(self, build: object) -> None:
        """``build`` has ended."""
        with self._changed:
            self._expected.pop(build, None)
            self._processes.pop(build, None)
            self._changed.notify_all()

    def _free(self) -> float:
        promised = 0
        for build, expected in self._expected.items():
            pid = self._processes.get(build)
            promised += max(0, expected - (memory_taken(pid) if pid is not None else 0))
        return int(psutil.virtual_memory().available) * _SHARE - promised


def _expected_memory(job: Job) -> int:
    """Bytes that the build of ``job`` is expected to take at most."""
    program = job.program
    size = 0
    with suppress(OSError):
        if isinstance(program, SavedProgram):
            size = Path(program.weights or program.path).stat().st_size
        elif program is not None:
            size = sum(tensor.nbytes for tensor in program.state_dict.values())
    return _BASE_MEMORY + int(_MEMORY_PER_WEIGHT_BYTE * size)
