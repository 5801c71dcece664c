"""A line where builds do not move, and none where they do."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any

import pytest

from lightning_trt_windows.builds.executors.stall import StallWatch


class Clock:
    """Seconds that go by as the test says."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Watched:
    """A watch with its lines."""

    def __init__(self, executor: Executor) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.watch = StallWatch(executor, self.lines.append, self.clock)
        self.futures: list[Future[Any]] = [Future()]

    def after(self, seconds: float) -> int:
        """Look each second for so long; how many lines there are then."""
        for _ in range(int(seconds)):
            self.watch.look(self.futures)
            self.clock.now += 1
        return len(self.lines)


def test_queue_that_does_not_move() -> None:
    """A line after ten seconds, then one a minute."""
    watched = Watched(Executor())
    assert watched.after(10) == 0
    assert watched.after(2) == 1
    assert watched.lines[0].startswith("1 build waited 10 s and none was begun or finished: Executor has not started")
    assert watched.after(57) == 1
    assert watched.after(3) == 2
    assert watched.lines[1].startswith("1 build waited 70 s")


def test_queue_that_moves() -> None:
    """What runs, however long, is no stall; what is finished or new begins the time anew."""
    watched = Watched(Executor())
    assert watched.after(8) == 0
    watched.futures.append(Future())
    assert watched.after(8) == 0
    watched.futures[0].set_running_or_notify_cancel()
    assert watched.after(500) == 0
    watched.futures.pop(0)
    assert watched.after(10) == 0
    watched.futures.clear()
    assert watched.after(500) == 0


@pytest.mark.processes
def test_dask_without_workers() -> None:
    """The line says that there are none, and how to start some; with busy ones it comes after a minute."""
    distributed: Any = pytest.importorskip("distributed")
    where = {"n_workers": 0, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**where) as cluster, distributed.Client(cluster) as client:
        watched = Watched(client.get_executor())
        assert watched.after(12) == 1
        assert f"at {cluster.scheduler_address} has no workers; start some: dask worker" in watched.lines[0]
        cluster.scale(1)
        client.wait_for_workers(1)
        event = distributed.Event("goes on", client=client)
        busy = client.submit(lambda: distributed.Event("goes on").wait(60))
        while not any(client.processing().values()):
            pass
        watched = Watched(client.get_executor())
        assert watched.after(58) == 0
        assert watched.after(4) == 1
        assert "1 workers of the Dask scheduler" in watched.lines[0]
        event.set()
        busy.result()
