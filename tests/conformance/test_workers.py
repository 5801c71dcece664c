"""Processes that share tasks, and what becomes of those that die or do not end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from conformance.workers import in_processes


def work(task: int) -> Any:
    """What most tasks do, and those that are named by a multiple of 10 do not."""
    if task == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 20:
        time.sleep(60)
    if task == 30:
        held = bytearray(1 << 29)
        held[:: 1 << 12] = b"x" * (1 << 17)
        time.sleep(60)
    return task * 2


def prepared(argument: str) -> Callable[[int], Any]:
    """What is called in each process."""
    assert argument == "given"
    return work


def test_every_task_has_an_end() -> None:
    """A process that dies, takes too long or too much memory costs its own task, and the others go on."""
    tasks = [1, 10, 2, 20, 3, 30, 4, 5, 6, 7]
    found = {
        task: (result, problem)
        for task, result, problem in in_processes(tasks, prepared, "given", workers=2, limit=4.0, memory=1 << 28)
    }
    assert {task: result for task, (result, problem) in found.items() if not problem} == {
        task: task * 2 for task in tasks if task % 10
    }
    assert found[10][1] == "the process died (-9)"
    assert found[20][1] == "took longer than 4 s"
    assert found[30][1].startswith("took more than")


def test_a_deadline() -> None:
    """Nothing is begun after it, and what runs is ended soon."""
    started = time.monotonic()
    options: Any = {"workers": 1, "limit": 60, "memory": 1 << 40}
    found = list(in_processes([1, 20, 2, 20], prepared, "given", **options, deadline=started + 15))
    assert found == [(1, 2, "")]
    assert time.monotonic() - started < 40
