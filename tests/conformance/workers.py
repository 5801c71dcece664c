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
_MOST_TASKS = 2000
"""After which a process is replaced: what it holds only grows."""
_READY = "ready"


class _Worker:
    """A process, and what it is at. It starts anew: TensorRT dies in a fork where there is a driver."""

    def __init__(self, prepare: Callable[[Any], Callable[[int], Any]], argument: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, prepare, argument), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
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


def _serve(pipe: Connection, prepare: Callable[[Any], Callable[[int], Any]], argument: Any) -> None:
    work = prepare(argument)
    pipe.send(_READY)
    try:
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, BrokenPipeError):  # whoever gave tasks is gone
        return


def in_processes(
    tasks: Sequence[int],
    prepare: Callable[[Any], Callable[[int], Any]],
    argument: Any,
    *,
    workers: int,
    limit: float,
    memory: int,
    deadline: float | None = None,
) -> Iterator[tuple[int, Any, str]]:
    """Give each task to the next free process; yields the task, what was made of it, and why nothing was.

    Args:
        tasks: In the order in which they are begun, those that take long first.
        prepare: Called with ``argument`` in each process, makes the function that does a task.
        argument: For ``prepare``.
        workers: Number of processes.
        limit: Seconds for one task.
        memory: Bytes for one process.
        deadline: Of ``time.monotonic()``, after which nothing is begun, and little later what runs is ended.

    Raises:
        RuntimeError: A process died before it was ready.
    """
    waiting = list(reversed(tasks))
    pool = [_Worker(prepare, argument) for _ in range(min(workers, len(tasks)))]
    try:
        while True:
            late = deadline is not None and time.monotonic() > deadline
            for number, worker in enumerate(pool):
                if worker.ready and worker.task is None and waiting and not late:
                    if worker.done >= _MOST_TASKS or worker.memory > memory / 2:
                        worker.end()
                        pool[number] = _Worker(prepare, argument)
                    else:
                        worker.give(waiting.pop())
            starting = [] if late or not waiting else [worker for worker in pool if not worker.ready]
            busy = [worker for worker in pool if worker.task is not None]
            over = deadline is not None and time.monotonic() > deadline + _GRACE
            if over or not (busy or starting):
                return
            heard = wait([worker.pipe for worker in (*busy, *starting)], timeout=0.5)
            for number, worker in enumerate(pool):
                if worker.pipe not in heard:
                    continue
                try:
                    answer = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    worker.process.join()
                    code = worker.process.exitcode
                    if worker.task is None:
                        raise RuntimeError(f"a process died before it was ready ({code})") from None
                    pool[number] = _Worker(prepare, argument)
                    yield worker.task, None, f"the process died ({code})"
                    continue
                if not worker.ready:
                    worker.ready = True
                    continue
                task, worker.task = worker.task, None
                worker.done += 1
                assert task is not None
                yield task, answer, ""
            for number, worker in enumerate(pool):
                if worker.task is None:
                    continue
                slow = time.monotonic() - worker.since > limit
                if slow or worker.memory > memory:
                    worker.end()
                    pool[number] = _Worker(prepare, argument)
                    why = f"took longer than {limit:.0f} s" if slow else f"took more than {memory / 2**30:.1f} GB"
                    yield worker.task, None, why
    finally:
        for worker in pool:
            worker.end()
