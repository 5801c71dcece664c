"""Builds that wait: how many an executor is given, and which give way to newer ones."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.builds.queue import Builds
from lightning_trt_windows.export.job import Job, SavedProgram
from lightning_trt_windows.settings import ExportSettings


class ByHand(Executor):
    """Runs what the test says, when it says so."""

    def __init__(self) -> None:
        self.submitted: dict[str, Future[Any]] = {}

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Wait for :meth:`end`."""
        future: Future[Any] = Future()
        self.submitted[args[0].paths.ep.name.partition(".")[0]] = future
        return future

    def begin(self, name: str) -> None:
        """A worker has taken it."""
        assert self.submitted[name].set_running_or_notify_cancel()

    def end(self, name: str) -> None:
        """It is built."""
        self.submitted[name].set_exception(ValueError(name))


@pytest.fixture
def executor() -> ByHand:
    """Nothing happens by itself."""
    return ByHand()


def add(builds: Builds, directory: Path, *names: str, twins: tuple[str, ...] = ()) -> None:
    """Ask for the artifacts of checkpoints, which may have the weights of ``twins``."""
    for name in names:
        checkpoint = directory / f"{name}.ckpt"
        job = Job(
            program=SavedProgram(directory / "program.pt2", checkpoint),
            paths=ArtifactPaths.beside(checkpoint),
            settings=ExportSettings(),
            inputs=(),
            outputs=(),
            checkpoint=None,
            capture_seconds=0.0,
            twins=tuple(directory / f"{twin}.ckpt" for twin in twins),
        )
        builds.add(checkpoint, job)


def finished(builds: Builds) -> list[str]:
    """Names of what has been reported."""
    return [outcome.checkpoint.stem for outcome in builds.collect()]


def test_so_many_at_a_time(tmp_path: Path, executor: ByHand) -> None:
    """The executor is given max_pending builds; the next one when one of them has finished, in their order."""
    builds = Builds(executor, most=2, replace_queued=False)
    add(builds, tmp_path, "a", "b", "c", "d")
    assert list(executor.submitted) == ["a", "b"]
    assert len(builds) == 4
    executor.end("b")
    assert finished(builds) == ["b"]
    assert list(executor.submitted) == ["a", "b", "c"]
    executor.end("a")
    executor.end("c")
    assert finished(builds) == ["a", "c"]
    assert list(executor.submitted)[-1] == "d"
    assert len(builds) == 1


def test_newer_ones_replace_those_that_wait(tmp_path: Path, executor: ByHand) -> None:
    """With replace_queued what runs goes on, what waits gives way, wherever it waits."""
    builds = Builds(executor, most=2, replace_queued=True)
    add(builds, tmp_path, "a")
    executor.begin("a")
    add(builds, tmp_path, "b")
    add(builds, tmp_path, "c")
    assert [path.stem for path in builds.replaced] == ["b"]
    assert executor.submitted["b"].cancelled()
    assert not executor.submitted["a"].cancelled()
    executor.begin("c")
    add(builds, tmp_path, "d", "e")
    assert [path.stem for path in builds.replaced] == ["b", "d"]
    executor.end("a")
    executor.end("c")
    assert finished(builds) == ["a", "c"]
    executor.end("e")
    assert finished(builds) == ["e"]
    assert len(builds) == 0


def test_without_it_all_are_built(tmp_path: Path, executor: ByHand) -> None:
    """By default every checkpoint has its turn."""
    builds = Builds(executor, most=16, replace_queued=False)
    add(builds, tmp_path, "a", "b", "c")
    for name in "abc":
        executor.end(name)
    assert finished(builds) == ["a", "b", "c"]
    assert builds.replaced == []


def test_written_over(tmp_path: Path, executor: ByHand) -> None:
    """A newer build for the same file takes the place of the older one, whose outcome nobody hears of."""
    builds = Builds(executor, most=2, replace_queued=False)
    add(builds, tmp_path, "a")
    first = executor.submitted["a"]
    executor.begin("a")
    add(builds, tmp_path, "a")
    first.set_exception(ValueError("older"))
    executor.end("a")
    assert finished(builds) == ["a"]


def test_given_up(tmp_path: Path, executor: ByHand) -> None:
    """An interruption names every checkpoint that has no artifact for it, those that wait included."""
    builds = Builds(executor, most=1, replace_queued=False)
    add(builds, tmp_path, "a", "b", "c")
    builds.drop(tmp_path / "b.ckpt")
    assert [path.stem for path in builds.cancel()] == ["a", "c"]
    assert executor.submitted["a"].cancelled()
    assert len(builds) == 0


def test_twins_one_after_the_other(tmp_path: Path, executor: ByHand) -> None:
    """A checkpoint that may have the weights of another one waits for its artifact, and those behind it do not."""
    builds = Builds(executor, most=4, replace_queued=False)
    add(builds, tmp_path, "a")
    add(builds, tmp_path, "b", twins=("a",))
    add(builds, tmp_path, "last", twins=("a", "b"))
    add(builds, tmp_path, "c")
    assert list(executor.submitted) == ["a", "c"]
    executor.end("a")
    assert finished(builds) == ["a"]
    assert list(executor.submitted) == ["a", "c", "b"]
    executor.end("b")
    executor.end("c")
    assert finished(builds) == ["c", "b"]
    assert list(executor.submitted)[-1] == "last"


def test_what_is_being_done(tmp_path: Path, executor: ByHand) -> None:
    """One build with its stage, and how many there are besides."""
    builds = Builds(executor, most=4, replace_queued=False)
    assert builds.doing() == ""
    add(builds, tmp_path, "a")
    assert builds.doing() == "a.windows.ep: waits"
    add(builds, tmp_path, "b", "c", "d", "e", "f")
    executor.begin("b")
    assert builds.doing() == "b.windows.ep: build (5 queued)"
    executor.submitted["b"].doing = "compile"  # type: ignore[attr-defined]
    executor.begin("c")
    assert builds.doing() == "b.windows.ep: compile (1 more at work, 4 queued)"


def test_executors_whose_futures_do_not_say_that_they_run(tmp_path: Path, executor: ByHand) -> None:
    """As many do as there are workers; a scheduler that does not answer is taken for one."""

    class Remote(ByHand):
        tells_running = False
        answers = True

        @property
        def workers(self) -> int:
            if not self.answers:
                raise OSError("it has gone")
            return 3

    remote = Remote()
    builds = Builds(remote, most=16, replace_queued=False)
    add(builds, tmp_path, "a", "b", "c", "d", "e")
    assert builds.doing() == "a.windows.ep: build (2 more at work, 2 queued)"
    remote.answers = False
    assert builds.doing() == "a.windows.ep: waits (4 queued)"
