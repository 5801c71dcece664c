"""Builder processes that stay: who shares one, what ends it, and that none outlives its training."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import building
from support.faults import faulty
from support.jobs import job
from support.lightning_models import Regression
from support.paths import TESTS

from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.builds.executors import builder, failed_build, room
from lightning_trt_windows.builds.executors.process import BuildProcess
from lightning_trt_windows.builds.executors.registry import named_executor
from lightning_trt_windows.builds.queue import Builds
from lightning_trt_windows.errors import CheckpointError, CompileError
from lightning_trt_windows.export.job import Job
from lightning_trt_windows.export.pipeline import build


@pytest.fixture
def asked(tmp_path: Path) -> Job:
    """A job beside a checkpoint."""
    return job(tmp_path, Regression())


@pytest.fixture
def executor() -> Iterator[BuildProcess]:
    """One build at a time."""
    made = BuildProcess(niceness=0, workers=1)
    yield made
    made.shutdown(cancel_futures=True)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    """Wait until ``condition`` holds."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.05)


def pid_of(executor: BuildProcess, asked: Job) -> int:
    """The process that builds."""
    pid: int = executor.submit(building.surroundings, asked).result()["pid"]  # type: ignore[index]
    return pid


def test_builds_share_a_process(executor: BuildProcess, asked: Job) -> None:
    """A build that is done and one that raises leave their process to the next one, and each its own log."""
    first = pid_of(executor, asked)
    check_artifact(executor.submit(build, asked).result())
    with pytest.raises(ValueError, match="no number"):
        executor.submit(building.raises, asked).result()
    log = (asked.paths.failed / "log.txt").read_text()
    assert "about to fail" in log and "from C" in log
    with pytest.raises(ValueError, match="no number"):
        executor.submit(building.raises, asked).result()
    assert (asked.paths.failed / "log.txt").read_text().count("about to fail") == 1
    assert pid_of(executor, asked) == first


def test_a_crash_ends_one_build_only(executor: BuildProcess, asked: Job) -> None:
    """Those that are queued behind it are built, in another process."""
    first = pid_of(executor, asked)
    crashed, good = executor.submit(building.crash, asked), executor.submit(build, asked)
    with pytest.raises(CompileError, match=r"(?s)SIGSEGV.*about to fall"):
        crashed.result()
    check_artifact(good.result())
    assert pid_of(executor, asked) != first


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_process_that_dies_between_builds(executor: BuildProcess, asked: Job) -> None:
    """Nobody hears of it: the next build gets another one."""
    first = pid_of(executor, asked)
    os.kill(first, signal.SIGKILL)
    assert pid_of(executor, asked) != first


def test_a_process_that_dies_as_the_call_is_on_its_way(
    executor: BuildProcess, asked: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not begun, so that the build is not what it died of."""
    first = pid_of(executor, asked)
    call = builder.Builder.call

    def late(self: builder.Builder, *arguments: Any) -> None:
        if self.process.pid == first:
            self.process.kill()
            self.process.wait()
        call(self, *arguments)

    monkeypatch.setattr(builder.Builder, "call", late)
    assert pid_of(executor, asked) != first


def test_a_cancelled_build_ends_alone(executor: BuildProcess, asked: Job) -> None:
    """The one before it is not harmed, and the one after it is built."""
    running, queued = executor.submit(building.hang, asked), executor.submit(build, asked)
    wait_for(lambda: running.process)  # type: ignore[attr-defined]
    assert running.cancel()
    with pytest.raises(CompileError, match="cancelled"):
        running.result()
    check_artifact(queued.result())
    assert not running.cancel()


@pytest.mark.parametrize(("name", "value"), [("_MOST_BUILDS", 1), ("_MOST_KEPT", 1_000_000)])
def test_a_process_that_has_done_enough(
    executor: BuildProcess, asked: Job, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    """After many builds, or one that has left too much memory taken, the next one has a fresh process."""
    monkeypatch.setattr(builder, name, value)
    assert pid_of(executor, asked) != pid_of(executor, asked)


def test_another_environment(executor: BuildProcess, asked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set between two builds counts for the second, as if it had a process of its own."""
    first = pid_of(executor, asked)
    monkeypatch.setenv("CUDA_MODULE_LOADING", "LAZY")
    assert pid_of(executor, asked) != first


def test_idle_ones_end(executor: BuildProcess, asked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time without a build process and thread are gone; the next build starts them again."""
    monkeypatch.setattr("lightning_trt_windows.builds.executors.process.IDLE_SECONDS", 0.5)
    first = pid_of(executor, asked)
    wait_for(lambda: not psutil.pid_exists(first))
    wait_for(lambda: not executor._threads)
    assert pid_of(executor, asked) != first


def test_several_at_a_time(asked: Job, tmp_path: Path) -> None:
    """As many as workers says, each in a process of its own; one that is idle is used before another is started."""
    executor = BuildProcess(niceness=0, workers=2)
    one = executor.submit(building.meets, asked)
    other = executor.submit(building.meets, asked)
    pids = {one.result(), other.result()}
    assert len(pids) == 2
    assert pid_of(executor, asked) in pids
    executor.shutdown()
    assert not any(psutil.pid_exists(pid) for pid in pids)  # type: ignore[arg-type]


def test_shut_down(asked: Job) -> None:
    """As concurrent.futures does it: nothing is taken any more, and what was is built."""
    executor = BuildProcess(niceness=0, workers=1)
    future = executor.submit(building.surroundings, asked)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(build, asked)
    pid = future.result()["pid"]  # type: ignore[index]
    executor.shutdown()
    executor.shutdown()
    wait_for(lambda: not psutil.pid_exists(pid))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("function", [BuildProcess._run, BuildProcess._build, room.Room.leave, builder.receive])
def test_a_thread_that_ends(asked: Job, function: Any) -> None:
    """Who waits for the build is told, at the latest when asking again, and the next one is built."""
    executor = BuildProcess(niceness=0, workers=1)
    builds = Builds(executor, most=2, replace_queued=False)
    checkpoint, outcomes = asked.paths.ep.with_name("a.ckpt"), []
    with faulty(function, MemoryError):
        builds.add(checkpoint, asked)
        builds.add(checkpoint.with_name("b.ckpt"), asked)
        builds.finish(outcomes.append)
    results = [outcome.result for outcome in outcomes]
    assert len(results) == 2
    if function is room.Room.leave:  # when it has been built
        check_artifact(results.pop(0))
        assert isinstance(results[0], CompileError)
    else:
        assert all(isinstance(r, CompileError) and "the thread that" in str(r) for r in results), results
    check_artifact(executor.submit(build, asked).result(120))
    executor.shutdown()


def test_a_process_that_cannot_be_told(executor: BuildProcess, asked: Job) -> None:
    """It lives, and nobody waits for what it was not told."""
    with faulty(builder.send, OSError):
        future = executor.submit(build, asked)
        with pytest.raises(CompileError, match="could not be told what to build and was killed: send was made to fail"):
            future.result(120)
    check_artifact(executor.submit(build, asked).result(120))


def test_own_error_on_a_full_disk(executor: BuildProcess, asked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept of a failed build does not take the place of its error."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failed_build, "link_or_copy", full)
    with pytest.raises(ValueError, match="no number"):
        executor.submit(building.raises, asked).result()
    with pytest.raises(CompileError, match=r"(?s)SIGSEGV.*could not be written.*No space left.*about to fall"):
        executor.submit(building.crash, asked).result()
    assert not asked.paths.failed.exists()
    assert not list(asked.paths.directory.glob(".*"))


def test_weights_of_another_module(executor: BuildProcess, asked: Job, tmp_path: Path) -> None:
    """An error of ours comes back as it is, and the next build finds the process as it should be."""
    building.checkpoint_of_another(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        executor.submit(build, asked).result()
    first = pid_of(executor, asked)
    assert pid_of(executor, asked) == first


class TestRoom:
    """How many builds there are at a time."""

    @pytest.mark.parametrize(
        ("cores", "gigabytes", "workers"),
        [(2, 24, 1), (15, 64, 1), (16, 64, 2), (32, 200, 4), (128, 500, 4), (64, 9, 1)],
    )
    def test_default(self, monkeypatch: pytest.MonkeyPatch, cores: int, gigabytes: int, workers: int) -> None:
        """Few cores and little memory belong to the training."""
        monkeypatch.setattr(room, "processor_cores", lambda: cores)
        monkeypatch.setattr(room.psutil, "virtual_memory", lambda: _Memory(gigabytes * 10**9))
        assert room.default_workers() == workers
        named = named_executor("process", workers=3)
        assert isinstance(named, BuildProcess)
        assert named.workers == 3

    def test_second_waits_for_memory(self, asked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        """It begins when the first has ended, or nobody wants it any more."""
        monkeypatch.setattr(room.psutil, "virtual_memory", lambda: _Memory(4 * 10**9))
        monkeypatch.setattr(room, "_INTERVAL", 0.01)
        there = room.Room()
        there.enter("first", asked, lambda: False)
        looks: list[int] = []
        there.enter("second", asked, lambda: bool(looks.append(1)) or len(looks) > 3)
        assert len(looks) == 4
        there.leave("first")
        there.leave("second")
        there.enter("third", asked, lambda: pytest.fail("alone there is always room"))

    def test_beside_another(self, asked: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the memory is there, it waits for nothing."""
        monkeypatch.setattr(room.psutil, "virtual_memory", lambda: _Memory(40 * 10**9))
        there = room.Room()
        there.enter("first", asked, lambda: False)
        there.runs_in("first", os.getpid())
        there.enter("second", asked, lambda: pytest.fail("there is room"))


class _Memory:
    def __init__(self, available: int) -> None:
        self.available = available


PARENT = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from support import building
from support.jobs import job
from support.lightning_models import Regression
from lightning_trt_windows.builds.executors.process import BuildProcess
executor = BuildProcess(niceness=0, workers=1)
asked = job(Path({directory!r}), Regression())
pid = executor.submit(building.surroundings, asked).result()["pid"]
if {busy}:
    running = executor.submit(building.hang, asked)
    while not running.process: time.sleep(0.05)
if {forked} and not os.fork():
    print(os.getpid(), flush=True)
    time.sleep(600)
print(pid, flush=True)
time.sleep(600)
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks for processes in /proc")
@pytest.mark.parametrize(("busy", "forked"), [(False, False), (True, False), (False, True)])
def test_killed_parent(tmp_path: Path, busy: bool, forked: bool) -> None:
    """No builder outlives it, idle or not, also where a process that it has forked goes on and keeps its pipes."""
    code = PARENT.format(tests=str(TESTS), directory=str(tmp_path), busy=busy, forked=forked)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    printed = [int(parent.stdout.readline()) for _ in range(1 + forked)]
    (builder_process,) = [
        child for child in psutil.Process(parent.pid).children() if "executors.worker" in " ".join(child.cmdline())
    ]
    assert builder_process.pid in printed
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(builder_process.pid), 30)
    for pid in printed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
