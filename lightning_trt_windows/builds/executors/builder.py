"""Builder processes as their owner sees them: started once, given one job after the other, ended when they must."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lightning_trt_windows.builds.executors.memory_limit import memory_taken
from lightning_trt_windows.builds.executors.worker import CALL, receive, send

__all__ = ["IDLE_SECONDS", "Builder", "BuilderPool", "Surroundings"]

IDLE_SECONDS = 600.0
"""Seconds after which a builder process that has nothing to do is ended."""
_MOST_BUILDS = 100
"""Builds after which a process is replaced, whatever it looks like."""
_MOST_KEPT = 2_000_000_000
"""Bytes that a process may hold between two builds. The imports hold 0.5 GB; what is more was left behind."""


@dataclass(frozen=True)
class Surroundings:
    """What a process gets when it starts, and cannot be given later."""

    environment: frozenset[tuple[str, str]]
    niceness: int
    sees_gpus: bool

    @classmethod
    def now(cls, niceness: int, *, sees_gpus: bool, threads: int | None) -> Surroundings:
        """Those of this process, which a new builder would inherit.

        Args:
            niceness: Added to that of this process.
            sees_gpus: Whether GPUs are visible.
            threads: Number of threads for PyTorch's operators, where nobody has said so already.

        Returns:
            The surroundings.
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if not sees_gpus:  # TensorRT-RTX builds without a GPU, and all of its memory belongs to the training
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        return cls(frozenset(environment.items()), niceness, sees_gpus)


class Builder:
    """A process that builds. It is started anew, never forked: nothing of the training's memory goes into it.

    Args:
        surroundings: Its environment and priority.
        log: Where it writes until its first call says otherwise.
    """

    def __init__(self, surroundings: Surroundings, log: Path) -> None:
        self.surroundings = surroundings
        self.calls = 0
        """Calls that it has been given."""
        self.messages: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        """Kind and content of what it says; ``None`` when it has ended."""
        self.idle_since = time.monotonic()
        command = [sys.executable, "-m", "lightning_trt_windows.builds.executors.worker", str(surroundings.niceness)]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(surroundings.environment),
            )
        assert self.process.stdout is not None
        self._listener = threading.Thread(
            target=self._listen, args=(self.process.stdout,), name="lightning-trt-windows-builder", daemon=True
        )
        self._listener.start()

    def call(self, call: bytes, log: Path) -> None:
        """Give it a pickled function with its arguments; what comes of it is in ``messages``.

        Raises:
            OSError: It cannot be reached, as a rule because it has ended, which ``messages`` says too.
        """
        self.calls += 1
        assert self.process.stdin is not None
        directory = ""
        with contextlib.suppress(OSError):  # deleted meanwhile; paths are absolute as a rule
            directory = str(Path.cwd())
        request = pickle.dumps((directory, str(log.absolute()), call))
        send(self.process.stdin, CALL, request)

    def has_ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within ``seconds``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None

    def is_listened_to(self) -> bool:
        """Whether anybody reads what it says. When it has ended, ``None`` is in ``messages`` before this is false."""
        return self._listener.is_alive()

    def may_go_on(self) -> bool:
        """Whether it lives, and holds no more than it should between two builds."""
        if self.process.poll() is not None or self.calls >= _MOST_BUILDS:
            return False
        return memory_taken(self.process.pid) <= _MOST_KEPT

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """End it, and close its streams."""
        self.kill()
        if self.process.stdin:
            with contextlib.suppress(OSError):  # what it has not read any more
                self.process.stdin.close()

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            while (message := receive(stream)) is not None:
                self.messages.put(message)
        self.messages.put(None)


class BuilderPool:
    """Builder processes that wait for the next job."""

    def __init__(self) -> None:
        self._idle: list[Builder] = []
        self._lock = threading.Lock()
        self._closed = False

    def take(self, surroundings: Surroundings) -> Builder | None:
        """A process with these surroundings that waits; ``None`` where there is none."""
        stale: list[Builder] = []
        found = None
        with self._lock:
            while self._idle and found is None:
                builder = self._idle.pop()
                if builder.surroundings == surroundings and builder.process.poll() is None:
                    found = builder
                else:  # of before the environment changed
                    stale.append(builder)
        for builder in stale:
            builder.close()
        return found

    def give_back(self, builder: Builder) -> None:
        """Keep ``builder`` for the next job, or end it where it is no good any more."""
        builder.idle_since = time.monotonic()
        keep = builder.may_go_on()
        with self._lock:
            keep = keep and not self._closed
            if keep:
                self._idle.append(builder)
        if not keep:
            builder.close()

    def end_idle(self, seconds: float = 0.0, *, with_gpus_only: bool = False) -> None:
        """End those that have waited for ``seconds``; with ``with_gpus_only`` only those that hold memory of a GPU."""
        last = time.monotonic() - seconds
        with self._lock:
            ended = [b for b in self._idle if b.idle_since <= last and (b.surroundings.sees_gpus or not with_gpus_only)]
            self._idle = [b for b in self._idle if b not in ended]
        for builder in ended:
            builder.close()

    def close(self) -> None:
        """End all that wait, and from now on whatever is given back."""
        with self._lock:
            self._closed = True
        self.end_idle()
