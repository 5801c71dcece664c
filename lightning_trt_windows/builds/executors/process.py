"""Where builds run: in this process, or in builder processes. Anything else is an ``Executor`` that the user brings.

Both are ``concurrent.futures`` executors, so that there is one way to hand a build over.
"""

from __future__ import annotations

import math
import pickle
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.files import output_errors, temporary_name
from lightning_trt_windows.backends import builds_on_a_gpu
from lightning_trt_windows.builds.executors.builder import IDLE_SECONDS, Builder, BuilderPool, Surroundings
from lightning_trt_windows.builds.executors.failed_build import LOG, died, fail_lost, keep
from lightning_trt_windows.builds.executors.memory_limit import MemoryLimit, memory_taken
from lightning_trt_windows.builds.executors.room import Room, default_workers, processor_cores
from lightning_trt_windows.builds.executors.worker import BEGUN, RESULT, STAGE
from lightning_trt_windows.errors import CompileError
from lightning_trt_windows.export.job import Job

__all__ = ["BuildProcess", "Inline"]

_LOOKS = 0.2
"""Seconds between two looks at a build's memory."""
_TIME_TO_END = 5.0
"""Seconds that a process may take from closing its streams to its end."""


class Inline(Executor):
    """Runs each call at once, in this thread."""

    workers = 1

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``function`` and return the finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        # the future carries it
        except Exception as error:
            future.set_exception(error)
        return future


class _Build(Future[Artifact]):
    """A build that can be cancelled while it runs: its process is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.doing = ""
        """What its process is doing."""
        self.thread: threading.Thread | None = None
        """The thread of this process that sees to it; ``None`` until its turn comes."""
        self.killed = False
        self._builder: Builder | None = None
        self._lock = threading.Lock()

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process that works for it now."""
        builder = self._builder
        return builder.process if builder else None

    def work_in(self, builder: Builder | None) -> None:
        """Say which process works for it; ``None`` when it has finished, and is not to be killed for it any more."""
        with self._lock:
            self._builder = builder
            if builder is None:
                self.doing = ""
            elif self.killed:  # between its turn and now
                builder.kill()

    def cancel(self) -> bool:
        """Take it off the queue, or kill its process."""
        if super().cancel():
            return True
        with self._lock:
            self.killed = True
            if self._builder is not None:
                self._builder.kill()
        return not self.done()


class BuildProcess(Executor):
    """Builds jobs in processes of low priority that see no GPU. Each takes one job after the other.

    A build that crashes, is killed, or takes too long or too much memory is an exception here, and leaves its log and a
    script that repeats it beside the artifact (``ArtifactPaths.failed``). Its process ends with it, and another one
    takes the next job. A process also ends when it holds too much memory after a build, when it has had nothing to do
    for ten minutes, and with this one.

    Args:
        deadline: Seconds that one build may take; ``None`` for no limit.
        memory: Gigabytes (10^9 bytes) that one build may take; ``None`` for four fifths of what is available when it
            begins.
        niceness: Added to the niceness of this process.
        workers: Builds at a time; ``None`` for one for each 8 processor cores and 8 GB of available memory, from 1 to
            4. One more begins only where the memory is available that it is expected to take.
    """

    def __init__(
        self,
        deadline: float | None = None,
        memory: float | None = None,
        *,
        niceness: int = 10,
        workers: int | None = None,
    ) -> None:
        self.deadline = deadline
        self.memory = memory
        self.niceness = niceness
        self.workers = default_workers() if workers is None else workers
        self._queue: queue.SimpleQueue[tuple[_Build, Callable[..., Any], Job] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        """Threads that wait for a build, less the builds that wait for a thread."""
        self._builds: list[_Build] = []
        self._lock = threading.Lock()
        self._is_shut_down = False
        self._pool = BuilderPool()
        self._room = Room()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue ``function(job)``; the function is a module's, and the job can be pickled.

        Returns:
            What the build will give; cancelling it ends the build.

        Raises:
            RuntimeError: The executor has been shut down.
        """
        (job,) = args
        build = _Build()
        self.look_after()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._builds = [*(b for b in self._builds if not b.done()), build]
            self._queue.put((build, function, job))
            self._idle -= 1
            if self._idle < 0 and len(self._threads) < self.workers:
                thread = threading.Thread(target=self._run, name="lightning-trt-windows", daemon=True)
                self._threads.append(thread)
                self._idle += 1
                thread.start()
        return build

    def look_after(self) -> None:
        """Fail the builds whose thread has ended before them, whatever ended it: who waits for them would wait forever.

        Threads end so when memory runs out in them. Their tracebacks are on the standard error output.
        """
        with self._lock:
            alive = [thread for thread in self._threads if thread.is_alive()]
            # without any thread nobody takes what is queued
            lost = [b for b in self._builds if not b.done() and (b.thread not in alive if b.thread else not alive)]
            if len(alive) < len(self._threads):
                self._threads = alive
                self._idle = len(alive) - sum(not b.done() for b in self._builds if b not in lost)
        fail_lost(lost, "saw to")
        for build in lost:
            if build.thread is not None:  # its turn had come
                self._room.leave(build)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the queue and the processes when all is built. With ``cancel_futures`` also kill what runs."""
        with self._lock:
            threads, already, self._is_shut_down = list(self._threads), self._is_shut_down, True
            for _ in () if already else threads:
                self._queue.put(None)
            builds = list(self._builds)
        if cancel_futures:
            for build in builds:
                build.cancel()
        self._pool.close()
        if wait:
            for thread in threads:
                thread.join()

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._pool.end_idle(IDLE_SECONDS)
                with self._lock:
                    if self._queue.empty():  # otherwise something has come in this moment
                        self._threads.remove(threading.current_thread())
                        self._idle -= 1
                        return
                continue
            if item is None:
                return
            item[0].thread = threading.current_thread()
            self._build(*item)
            del item  # a program may be large
            with self._lock:
                self._idle += 1
                nothing_waits = self._queue.empty()
            if nothing_waits:  # the training wants the memory of its GPU
                self._pool.end_idle(with_gpus_only=True)

    def _build(self, build: _Build, function: Callable[..., Any], job: Job) -> None:
        if build.done() and not build.cancelled():  # given up with the thread that was there before this one
            return
        try:
            self._room.enter(build, job, build.cancelled)
            if not build.set_running_or_notify_cancel():
                return
            result = self._built(build, function, job)
        # the thread outlives every failure; the future carries it
        except BaseException as error:
            build.set_exception(error)
        else:
            build.set_result(result)
        finally:
            self._room.leave(build)

    def _built(self, build: _Build, function: Callable[..., Any], job: Job) -> Artifact:
        folder = job.paths.ep.with_name(temporary_name(".build"))
        with output_errors(folder, 0):
            folder.mkdir()
        try:
            outcome, how = self._called(build, folder, pickle.dumps((function, (job,))), sees_gpus=_needs_gpu(job))
            if outcome is not None and outcome[0]:
                shutil.rmtree(job.paths.failed, ignore_errors=True)
                return outcome[1]  # type: ignore[no-any-return]  # what build gives back
            if build.killed:
                raise CompileError("the build was cancelled")
            log = _log_of(folder)
            kept = keep(folder, function, job)
            raise outcome[1] if outcome is not None else CompileError(died(how, kept, log))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _called(
        self, build: _Build, folder: Path, call: bytes, *, sees_gpus: bool
    ) -> tuple[tuple[bool, Any] | None, str]:
        """Have a builder process do ``call``.

        Returns:
            ``(True, value)`` or ``(False, exception)``; or nothing and how the process ended.
        """
        threads = max(1, processor_cores() // self.workers) if self.workers > 1 else None
        surroundings = Surroundings.now(self.niceness, sees_gpus=sees_gpus, threads=threads)
        while True:
            builder = self._pool.take(surroundings)
            was_warm = builder is not None
            if builder is None:
                builder = Builder(surroundings, folder / LOG)
            self._room.runs_in(build, builder.process.pid)
            begun, answer, how = False, None, ""
            try:
                build.work_in(builder)
                begun, answer, how = self._watched(build, builder, call, folder / LOG)
            finally:
                try:
                    build.work_in(None)
                finally:
                    if answer is None:
                        builder.close()
                    else:
                        self._pool.give_back(builder)
            if answer is not None:
                return pickle.loads(answer), ""
            if begun or not was_warm or build.killed:
                return None, how or _how_it_ended(builder.process)
            # it ended while it had nothing to do, or as the call was on its way: that is not the build's fault

    def _watched(self, build: _Build, builder: Builder, call: bytes, log: Path) -> tuple[bool, bytes | None, str]:
        """Let ``builder`` do ``call`` as long as it keeps to its limits.

        Returns:
            Whether it had begun, the pickled outcome if there is one, and the limit that it did not keep to.
        """
        limit = MemoryLimit(self.memory, held=memory_taken(builder.process.pid))
        last = time.monotonic() + (math.inf if self.deadline is None else self.deadline)
        begun = False
        try:
            builder.call(call, log)
        except OSError as error:
            if not builder.has_ended(_TIME_TO_END):  # otherwise its messages say that it has, and nothing else
                return begun, None, f"could not be told what to build and was killed: {error}"
        while True:
            listened_to = builder.is_listened_to()
            try:
                message = builder.messages.get(timeout=max(0.001, min(_LOOKS, last - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= last:
                    return (
                        True,
                        None,
                        f"did not finish in {self.deadline:g} s and was killed; build_deadline gives it more time",
                    )
                if too_much := limit.exceeded(builder.process.pid):
                    return True, None, too_much
                if not listened_to:
                    return True, None, "was killed: the thread that reads its answers has ended before it"
                continue
            if message is None:  # it closes its end when it ends
                ended = builder.has_ended(_TIME_TO_END)
                return begun, None, "" if ended else "closed its end of the connection, and was killed"
            kind, content = message
            begun = begun or kind == BEGUN
            if kind == STAGE:
                build.doing = content.decode()
            elif kind == RESULT:
                return True, content, ""


def _log_of(folder: Path) -> str:
    try:
        return (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _needs_gpu(job: Job) -> bool:
    """TensorRT times kernels while it builds, and verifying runs engines."""
    return bool(job.settings.verify) or builds_on_a_gpu(job.settings.backend)


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code is None or code >= 0:
        return f"ended with code {code} and without a result"
    memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{memory}"
