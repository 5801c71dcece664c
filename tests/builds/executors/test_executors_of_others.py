"""Executors that users bring: their workers build the jobs, for real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from support import building
from support.faults import faulty
from support.lightning_models import Data, Regression, trainer
from support.unchanged import assert_unchanged

from lightning_trt_windows import WindowsExport, export_checkpoints
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.builds.executors.submitit import SubmititExecutor
from lightning_trt_windows.errors import CompileError

pytestmark = pytest.mark.processes


def dask(tmp_path: Path) -> Iterator[Any]:
    """A cluster of one process on this machine."""
    distributed = pytest.importorskip("distributed")
    where = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path)}
    with distributed.LocalCluster(**where) as cluster, distributed.Client(cluster) as client:
        yield client.get_executor()


def loky(tmp_path: Path) -> Iterator[Any]:
    """Reusable workers, as joblib has them."""
    executor = pytest.importorskip("loky").get_reusable_executor(max_workers=1, timeout=60)
    yield executor
    executor.shutdown(kill_workers=True)


def submitit(tmp_path: Path) -> Iterator[Any]:
    """Submitit's executor for this machine, which SLURM's has the interface of."""
    executor = SubmititExecutor(pytest.importorskip("submitit").LocalExecutor(tmp_path), interval=0.2)
    yield executor
    executor.shutdown()


@pytest.mark.parametrize("make", [dask, loky, submitit])
def test_executor(tmp_path: Path, make: Any) -> None:
    """Each checkpoint of a run is built by the executor's workers, which then are still there."""
    for executor in make(tmp_path / "of the executor"):
        directory = tmp_path / "run"
        export = WindowsExport(when="checkpoint", executor=executor)
        saver = ModelCheckpoint(directory, filename="{epoch}", save_top_k=-1)
        trainer(directory, saver, export, max_epochs=2).fit(Regression(), datamodule=Data())
        assert export.failures == []
        assert [check_artifact(a).path.name for a in export.artifacts] == ["epoch=0.windows.ep", "epoch=1.windows.ep"]
        assert executor.submit(int, "3").result() == 3


@pytest.mark.parametrize("make", [dask, loky, submitit])
def test_training_is_unchanged(tmp_path: Path, make: Any) -> None:
    """Weights, optimizer and random states, bit for bit."""
    for executor in make(tmp_path / "of the executor"):
        export = WindowsExport(when="checkpoint", executor=executor)
        assert_unchanged(tmp_path, export)
        assert export.failures == []
        assert len(export.artifacts) == 2


@pytest.mark.parametrize("name", ["dask", "loky:2", "submitit"])
def test_by_name(tmp_path: Path, name: str) -> None:
    """Many checkpoints go to the executor that is named, and nothing of it goes on afterwards."""
    run = tmp_path / "run"
    saver = ModelCheckpoint(run, filename="{epoch}", save_top_k=-1)
    trainer(tmp_path, saver, max_epochs=2).fit(Regression(), datamodule=Data())
    scheduler: Any = None
    if name == "dask":
        distributed: Any = pytest.importorskip("distributed")
        scheduler = distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path)
        name = f"dask:{scheduler.scheduler_address}"
    elif name == "submitit":
        name = f"submitit:{tmp_path / 'logs'}"
    exports = export_checkpoints([run], Regression, Data(), executor=name)
    if scheduler is not None:
        scheduler.close()
    assert exports.failures == []
    assert [check_artifact(a).path.name for a in exports.artifacts] == ["epoch=0.windows.ep", "epoch=1.windows.ep"]


class TestSubmitit:
    """The futures of SubmititExecutor."""

    def test_failure(self, tmp_path: Path) -> None:
        """What a job raises or dies of is the future's exception."""
        executor = next(submitit(tmp_path))
        raised, died = executor.submit(int, "x"), executor.submit(building.crash, None)
        with pytest.raises(Exception, match="invalid literal"):
            raised.result(120)
        with pytest.raises(Exception, match=r"(?i)job|signal"):
            died.result(120)

    def test_cancelled(self, tmp_path: Path) -> None:
        """A job that runs is ended when its future is cancelled."""
        executor = next(submitit(tmp_path))
        future = executor.submit(building.hang, SimpleNamespace())
        deadline = time.monotonic() + 120
        while not future.running():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert future.cancel()
        with pytest.raises((CompileError, CancelledError)):
            future.result(60)
        executor.shutdown(cancel_futures=True)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_thread_that_ends(self, tmp_path: Path) -> None:
        """Who waits is told, and the next job is asked for."""
        executor = next(submitit(tmp_path))
        with faulty(SubmititExecutor._look, MemoryError):
            future = executor.submit(int, "3")
            executor.shutdown()
        with pytest.raises(CompileError, match="the thread that asks submitit"):
            future.result(0)
        with faulty(SubmititExecutor._look, MemoryError):
            lost = executor.submit(int, "3")
            executor._thread.join()
        assert executor.submit(int, "4").result(120) == 4
        with pytest.raises(CompileError, match="the thread that asks submitit"):
            lost.result(0)
