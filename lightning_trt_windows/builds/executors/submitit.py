"""``submitit`` (SLURM, and processes of this machine) as a ``concurrent.futures`` executor.

submitit's executors have a ``submit`` of their own kind: what it returns is a job that has to be asked. Here a thread
asks, and the future knows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

from lightning_trt_windows.builds.executors.failed_build import fail_lost
from lightning_trt_windows.errors import CompileError

__all__ = ["SubmititExecutor"]


class _SubmittedBuild(Future[Any]):
    """A build that can be cancelled while it runs: submitit ends its job."""

    job: Any = None
    unwanted = False

    def cancel(self) -> bool:
        """Take it off the queue, or end its job."""
        if self.done():
            return self.cancelled()
        self.unwanted = True
        if self.job is not None:
            self.job.cancel(check=False)
        return super().cancel() or not self.done()


class SubmititExecutor(Executor):
    """Hands builds to a submitit executor.

    Args:
        executor: A ``submitit.AutoExecutor`` or any other of submitit's, with its parameters set (partition, time,
            memory), or the folder for a new ``AutoExecutor``: SLURM where there is one, else processes of this machine.
        interval: Seconds between two looks at the jobs.

    Example:
        >>> executor = submitit.AutoExecutor("slurm_logs")
        >>> executor.update_parameters(timeout_min=30, slurm_partition="cpu", cpus_per_task=4, mem_gb=16)
        >>> WindowsExport(when="checkpoint", executor=SubmititExecutor(executor))
    """

    def __init__(self, executor: Any, interval: float = 1.0) -> None:
        if isinstance(executor, (str, Path)):
            import submitit

            executor = submitit.AutoExecutor(executor)
        self.executor = executor
        self.interval = interval
        self._builds: list[_SubmittedBuild] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a job. Whatever is passed is pickled into submitit's folder.

        Returns:
            What the job will give; cancelling it ends the job.
        """
        self.look_after()
        build = _SubmittedBuild()
        build.job = self.executor.submit(function, *args, **kwargs)
        with self._lock:
            self._builds.append(build)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="lightning-trt-windows-submitit", daemon=True)
                self._thread.start()
        return build

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the jobs, or end them with ``cancel_futures``."""
        with self._lock:
            builds = list(self._builds)
        for build in builds if cancel_futures else ():
            build.cancel()
        while wait and (left := [build for build in builds if not build.done()]):
            wait_for(left, timeout=self.interval)
            self.look_after()

    def look_after(self) -> None:
        """Fail the builds that nobody asks submitit for any more: who waits for them would wait forever."""
        with self._lock:
            if self._thread is None or self._thread.is_alive():
                return
            lost, self._builds, self._thread = self._builds, [], None
        fail_lost(lost, "asks submitit for")

    def _look(self) -> None:
        while True:
            with self._lock:
                builds = list(self._builds)
                if not builds:
                    self._thread = None
                    return
            finished = [build for build in builds if _has_finished(build)]
            with self._lock:
                self._builds = [build for build in self._builds if build not in finished]
            time.sleep(self.interval)


def _has_finished(build: _SubmittedBuild) -> bool:
    if build.cancelled():
        return True
    job = build.job
    try:
        if not job.done():
            if not build.running() and job.state == "RUNNING":
                build.set_running_or_notify_cancel()
            return False
        if not build.running() and not build.set_running_or_notify_cancel():
            return True
        build.set_result(job.result())
    # whatever submitit or the job says
    except Exception as error:
        build.set_exception(CompileError("the build was cancelled") if build.unwanted else error)
    return True
