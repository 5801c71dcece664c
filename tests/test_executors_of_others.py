"""Executors that users bring: their workers build the jobs, for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_models import Data, Regression, trainer

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.artifact import check_artifact

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


@pytest.mark.parametrize("make", [dask, loky])
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
