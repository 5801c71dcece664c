"""Where builds run: in this process, or each in a fresh one. Anything else is an ``Executor`` that the user brings.

Both are ``concurrent.futures`` executors, so that there is one way to hand a build over.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.files import link_or_copy, temporary_name
from lightning_trt_windows.backends import builds_on_a_gpu
from lightning_trt_windows.builds.executors.memory_limit import MemoryLimit
from lightning_trt_windows.builds.executors.worker import CALL, RESULT, STAGE
from lightning_trt_windows.errors import CompileError
from lightning_trt_windows.export.job import Job, SavedProgram

__all__ = ["BuildProcess", "Inline"]

_LOG = "log.txt"
_LOG_TAIL = 2000
"""Characters of the log that go into the message."""
_LOOKS = 0.2
"""Seconds between two looks at a build's memory."""

_REPRODUCE = '''"""Repeats the build that failed, with its messages: python reproduce.py"""

import pickle
from dataclasses import replace
from pathlib import Path

from lightning_trt_windows.export.pipeline import build

here = Path(__file__).resolve().parent
function, (job,) = pickle.loads((here / "call.pickle").read_bytes())
paths = replace(job.paths, directory=here.parent)
weights = job.program.weights and here.parent / job.program.weights.name
program = replace(job.program, path=here / job.program.path.name, weights=weights)
print(build(replace(job, program=program, paths=paths)))
'''


class Inline(Executor):
    """Runs each call at once, in this thread."""

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

    process: subprocess.Popen[bytes] | None = None
    killed = False
    folder: Path | None = None

    @property
    def doing(self) -> str:
        """What its process is doing."""
        try:
            return (self.folder / STAGE).read_text(encoding="utf-8") if self.folder else ""
        except OSError:
            return ""

    def cancel(self) -> bool:
        """Take it off the queue, or kill its process."""
        if super().cancel():
            return True
        self.killed = True
        _kill(self.process)
        return not self.done()


class BuildProcess(Executor):
    """Builds jobs one after the other, each in a fresh process of low priority that sees no GPU.

    A build that crashes, is killed, or takes too long or too much memory is an exception here, and leaves its log and a
    script that repeats it beside the artifact (``ArtifactPaths.failed``).

    Args:
        deadline: Seconds that one build may take; ``None`` for no limit.
        memory: Gigabytes (10^9 bytes) that one build may take; ``None`` for four fifths of what is available when it
            begins.
        niceness: Added to the niceness of this process.
    """

    def __init__(self, deadline: float | None = None, memory: float | None = None, *, niceness: int = 10) -> None:
        self.deadline = deadline
        self.memory = memory
        self.niceness = niceness
        self._queue: queue.SimpleQueue[tuple[_Build, Callable[..., Any], Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._builds: list[_Build] = []
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue ``function(job)``; the function is a module's, and the job can be pickled."""
        (job,) = args
        build = _Build()
        with self._lock:
            self._builds = [*(b for b in self._builds if not b.done()), build]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lightning-trt-windows", daemon=True)
                self._thread.start()
        self._queue.put((build, function, job))
        return build

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the queue. With ``cancel_futures`` also kill what runs."""
        with self._lock:
            thread, self._thread = self._thread, None
        if cancel_futures:
            for build in self._builds:
                build.cancel()
        if thread is not None:
            self._queue.put(None)
            if wait:
                thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            build, function, job = item
            if not build.set_running_or_notify_cancel():
                continue
            try:
                result = self._built(build, function, job)
            # the thread outlives every failure; the future carries it
            except BaseException as error:
                build.set_exception(error)
            else:
                build.set_result(result)

    def _built(self, build: _Build, function: Callable[..., Any], job: Job) -> Artifact:
        folder = job.paths.ep.with_name(temporary_name(".build"))
        folder.mkdir()
        build.folder = folder
        try:
            (folder / CALL).write_bytes(pickle.dumps((function, (job,))))
            with (folder / _LOG).open("wb") as log:
                why = self._run_process(build, folder, log, sees_gpus=_needs_gpu(job))
            outcome = _outcome(folder)
            if outcome is not None and outcome[0]:
                shutil.rmtree(job.paths.failed, ignore_errors=True)
                return outcome[1]  # type: ignore[no-any-return]  # what build gives back
            if build.killed:
                raise CompileError("the build was cancelled")
            kept = _keep(folder, function, job)
            if outcome is not None:
                raise outcome[1]
            raise CompileError(_died(why or _how_it_ended(build.process), kept))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run_process(self, build: _Build, folder: Path, log: IO[bytes], *, sees_gpus: bool) -> str:
        """Run the worker to its end; what it was ended for, or nothing."""
        command = [
            sys.executable,
            "-m",
            "lightning_trt_windows.builds.executors.worker",
            str(folder),
            str(self.niceness),
        ]
        # TensorRT-RTX builds without a GPU, and all of its memory belongs to the training
        hidden = {} if sees_gpus else {"CUDA_VISIBLE_DEVICES": ""}
        environment = {**os.environ, **hidden, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        build.process = process
        try:
            if build.killed:  # between its turn and now
                _kill(process)
            return self._watched(process)
        finally:
            _kill(process)
            if process.stdin:
                process.stdin.close()

    def _watched(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for ``process`` as long as it keeps to its limits; the one that it does not keep to, or nothing."""
        limit = MemoryLimit(self.memory)
        last = time.monotonic() + (math.inf if self.deadline is None else self.deadline)
        while True:
            try:
                process.wait(max(0.0, min(_LOOKS, last - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= last:
                    return f"did not finish in {self.deadline:g} s and was ended; build_deadline gives it more time"
                if too_much := limit.exceeded(process.pid):
                    return too_much
            else:
                return ""


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()


def _outcome(folder: Path) -> tuple[bool, Any] | None:
    try:
        return pickle.loads((folder / RESULT).read_bytes())  # type: ignore[no-any-return]  # what the worker wrote
    except FileNotFoundError:
        return None


def _keep(folder: Path, function: Callable[..., Any], job: Job) -> Path:
    """Turn the folder of a failed build into what its user needs to find out why."""
    kept = job.paths.failed
    shutil.rmtree(kept, ignore_errors=True)
    if isinstance(job.program, SavedProgram):
        link_or_copy(job.program.path, folder / "program.pt2")
        moved = replace(job, program=replace(job.program, path=Path("program.pt2")), skip_existing=False)
    else:
        moved = replace(job.saved(folder / "program.pt2"), skip_existing=False)
    (folder / CALL).write_bytes(pickle.dumps((function, (moved,))))
    (folder / "reproduce.py").write_text(_REPRODUCE, encoding="utf-8")
    (folder / RESULT).unlink(missing_ok=True)
    folder.rename(kept)
    return kept


def _needs_gpu(job: Job) -> bool:
    """TensorRT times kernels while it builds, and verifying runs engines."""
    return bool(job.settings.verify) or builds_on_a_gpu(job.settings.backend)


def _how_it_ended(process: subprocess.Popen[bytes] | None) -> str:
    code = process.returncode if process else None
    if code is None or code >= 0:
        return f"ended with code {code} and without a result"
    memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{memory}"


def _died(how: str, kept: Path) -> str:
    log = (kept / _LOG).read_text(encoding="utf-8", errors="replace").strip()
    tail = f". Its last words:\n{log[-_LOG_TAIL:]}" if log else ""
    return f"the build process {how}. {kept.name}/ has its log, and reproduce.py to repeat it{tail}"
