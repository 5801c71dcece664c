"""Many tasks beside each other: processes that start once, take the next task when they are free, and may die."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

__all__ = ["in_processes"]

_GRACE = 5.0
"""Seconds that tasks are given beyond the deadline."""
_MOST_TASKS = 400
"""After which a process is replaced: what it holds only grows."""


class _Worker:
    """A process, forked from this one with all that is imported, and what it is at."""

    def __init__(self, work: Callable[[int], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.task: int | None = None
        self.since = 0.0
        self.done = 0

    def give(self, task: int) -> None:
        self.pipe.send(task)
        self.task, self.since = task, time.monotonic()

    @property
    def memory(self) -> int:
        """Bytes in memory, as far as the system says."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, work: Callable[[int], Any]) -> None:
    while (task := pipe.recv()) is not None:
        pipe.send(work(task))


def in_processes(
    tasks: Sequence[int],
    work: Callable[[int], Any],
    *,
    workers: int,
    limit: float,
    memory: int,
    deadline: float | None = None,
) -> Iterator[tuple[int, Any, str]]:
    """Give each task to the next free process; yields the task, what ``work`` made of it, and why it made nothing.

    Args:
        tasks: In the order in which they are begun, those that take long first.
        work: Runs in the processes.
        workers: Number of processes.
        limit: Seconds for one task.
        memory: Bytes for one process.
        deadline: Of ``time.monotonic()``, after which nothing is begun, and little later what runs is ended.
    """
    waiting = list(reversed(tasks))
    pool = [_Worker(work) for _ in range(min(workers, len(tasks)))]
    try:
        while True:
            late = deadline is not None and time.monotonic() > deadline
            for number, worker in enumerate(pool):
                if worker.task is None and waiting and not late:
                    if worker.done >= _MOST_TASKS or worker.memory > memory / 2:
                        worker.end()
                        worker = pool[number] = _Worker(work)
                    worker.give(waiting.pop())
            busy = {worker.pipe: number for number, worker in enumerate(pool) if worker.task is not None}
            if not busy or (deadline is not None and time.monotonic() > deadline + _GRACE):
                return
            for pipe in wait(list(busy), timeout=0.5):
                worker = pool[busy[pipe]]
                task, worker.task = worker.task, None
                worker.done += 1
                try:
                    yield task, worker.pipe.recv(), ""
                except (EOFError, ConnectionError):
                    worker.process.join()
                    code = worker.process.exitcode
                    worker.end()
                    pool[busy[pipe]] = _Worker(work)
                    yield task, None, f"the process died ({code})"
            for number, worker in enumerate(pool):
                if worker.task is None:
                    continue
                slow = time.monotonic() - worker.since > limit
                if slow or worker.memory > memory:
                    task = worker.task
                    worker.end()
                    pool[number] = _Worker(work)
                    yield task, None, f"took longer than {limit:.0f} s" if slow else f"took more than {memory >> 30} GB"
    finally:
        for worker in pool:
            worker.end()
