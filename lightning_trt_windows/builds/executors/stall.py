"""A line for people where builds do not move: a Dask scheduler without workers, a queue that others fill."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["StallWatch"]

_FIRST = 10.0
"""Seconds without any movement after which the first line comes."""
_EVERY = 60.0
"""Seconds between two lines, and until the first one where workers are busy."""
_INTERVAL = 1.0
"""Seconds between two looks; a training asks at every step."""


class StallWatch:
    """Tells when none of the builds that an executor was given begins or ends for some time.

    Args:
        executor: Where they are built.
        tell: Is given each line.
        clock: Seconds that go by.
    """

    def __init__(
        self, executor: Executor, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._executor = executor
        self._tell = tell
        self._clock = clock
        self._state: frozenset[tuple[int, bool]] = frozenset()
        self._since = self._next = 0.0
        self._looked = -_INTERVAL

    def look(self, futures: Collection[Future[Any]]) -> None:
        """Compare ``futures``, those that have not been collected, with the last time."""
        now = self._clock()
        if now - self._looked < _INTERVAL:
            return
        self._looked = now
        state = frozenset((id(future), future.running() or future.done()) for future in futures)
        if state != self._state or any(moves for _, moves in state):
            self._state, self._since, self._next = state, now, now + _FIRST
            return
        if not futures or now < self._next:
            return
        waited = now - self._since
        why, is_busy = _reason(self._executor)
        if is_busy and waited < _EVERY:
            self._next = self._since + _EVERY
            return
        self._next = now + _EVERY
        builds = "1 build" if len(futures) == 1 else f"{len(futures)} builds"
        self._tell(f"{builds} waited {waited:.0f} s and none was begun or finished: {why}")


def _reason(executor: Executor) -> tuple[str, bool]:
    """Why nothing moves, and whether that may be because all work goes on."""
    client = getattr(executor, "_client", None)  # that of distributed.cfexecutor.ClientExecutor, and of ours
    if not hasattr(client, "processing"):
        return f"{type(executor).__name__} has not started them; its workers are busy, or there are none", False
    try:
        processing = client.processing()  # type: ignore[union-attr]  # a distributed.Client
        where = client.scheduler.address  # type: ignore[union-attr]
    # whatever the network or another version says: this is a line for people, and no more
    except Exception as error:
        return f"the Dask scheduler does not answer ({type(error).__name__}: {error})", False
    if not processing:
        return f"the Dask scheduler at {where} has no workers; start some: dask worker {where}", False
    tasks = sum(map(len, processing.values()))
    return f"{len(processing)} workers of the Dask scheduler at {where} work on {tasks} tasks", bool(tasks)
