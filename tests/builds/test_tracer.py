"""When a module is captured again, and when an earlier trace serves."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from support.jobs import checkpoint
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows import DimRange, InputSpec, WindowsExport
from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.builds.tracer import STALE_AFTER, Tracer, sweep
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.settings import ExportSettings


def taken(module: Any) -> Snapshot:
    """The module as it is now."""
    inputs = {"x": InputSpec((DimRange(1, 2, 8), 4))}
    return Snapshot.take(module, lambda: discover(module, inputs=inputs), step=1)


@pytest.fixture
def tracer() -> Tracer:
    """With the defaults."""
    return Tracer(ExportSettings(), method="forward", extra={}, retrace=False)


class Annealed(Regression):
    """Multiplies by what its Trainer says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1 + self.current_epoch)


def test_the_place_in_training(tmp_path: Path) -> None:
    """A forward that asks for the epoch is captured for each checkpoint, and has the epoch of each."""
    export = WindowsExport(when="checkpoint", executor="inline", golden=True)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(tmp_path, saver, export, max_epochs=2).fit(Annealed(), datamodule=Data())
    assert export.failures == []
    assert all(artifact.manifest.timings.capture > 0 for artifact in export.artifacts)
    assert len({artifact.manifest.backend.options["request"] for artifact in export.artifacts}) == 2


def test_what_has_changed_since(tmp_path: Path, tracer: Tracer) -> None:
    """A file that was written later is exported as the module was; where that cannot be, it is refused."""
    module = Regression().eval()
    moment = taken(module)
    path = checkpoint(tmp_path / "a.ckpt", module)
    tracer.job(module, path, moment.past(), ())
    module.scale = 3.0
    tracer.job(module, checkpoint(tmp_path / "b.ckpt", module), moment.past(), ())
    assert tracer.traced == 1, "the trace is one of that moment"
    later = taken(module)
    module.scale = 4.0
    with pytest.raises(CaptureError, match=r"c\.ckpt was written after training had gone on.*lightning-trt-windows"):
        tracer.job(module, checkpoint(tmp_path / "c.ckpt", module), later.past(), ())
    tracer.close()


def test_written_later_by_a_thread(tmp_path: Path) -> None:
    """In a real training: an attribute that changes after each checkpoint, and files that come later."""

    class Slow(AsyncCheckpointIO):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            self._ensure_setup()
            self._executor.submit(time.sleep, 0.5)  # type: ignore[union-attr]
            super().save_checkpoint(*args, **kwargs)

    class Anneals(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.scale = float(trainer.current_epoch)

    export = WindowsExport(when="checkpoint", executor="inline", preflight=False)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run = trainer(tmp_path, saver, Anneals(), export, max_epochs=2, plugins=[Slow()])
    with pytest.warns(UserWarning, match="was written after training had gone on"):
        run.fit(Regression(), datamodule=Data())
    assert [artifact.path.name for artifact in export.artifacts] == ["epoch=1.windows.ep"]


def test_a_run_of_many_hours_keeps_its_trace(tmp_path: Path, tracer: Tracer) -> None:
    """Another run that begins in the same directory leaves it what it uses."""
    module = Regression().eval()
    job = tracer.job(module, checkpoint(tmp_path / "a.ckpt", module), taken(module), ())
    folder = job.program.path.parent  # type: ignore[union-attr]
    for path in (job.program.path, folder):  # type: ignore[union-attr]
        os.utime(path, (time.time() - STALE_AFTER - 60,) * 2)
    job = tracer.job(module, checkpoint(tmp_path / "b.ckpt", module), taken(module), ())
    sweep(tmp_path)
    job.load()
    tracer.close()
    assert not folder.exists()
