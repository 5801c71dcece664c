"""Training with the callback is training without it, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_trt_windows import WindowsExport
from support.lightning_models import Data, Regression, trainer


def assert_unchanged(folder: Path, export: WindowsExport) -> Path:
    """Train without ``export``, then with it: same weights, optimizer and random states. Gives the latter's folder."""
    results = []
    for name, callbacks in (("without", []), ("with", [export])):
        L.seed_everything(3, verbose=False)
        module = Regression()
        saver = ModelCheckpoint(folder / name, filename="{epoch}-{step}", every_n_train_steps=7, save_top_k=-1)
        run = trainer(folder / name, saver, *callbacks, max_epochs=3)
        run.fit(module, datamodule=Data())
        results.append((module.state_dict(), run.optimizers[0].state_dict(), torch.get_rng_state()))
    without, with_export = results
    assert_same(without, with_export)
    return folder / "with"


def assert_same(one: Any, other: Any) -> None:
    """Nested containers with the same tensors and values."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            assert_same(left, right)
    else:
        assert one == other
