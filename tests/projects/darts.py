"""darts: forecasting models that pickle themselves, callbacks and all, when training begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
from darts import TimeSeries
from darts.models import TCNModel, TiDEModel, TransformerModel
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("darts==0.48.1",)


def _series() -> TimeSeries:
    random = numpy.random.default_rng(1)
    return TimeSeries.from_values((numpy.sin(numpy.arange(120) / 5) + random.random(120) / 10).astype("float32"))


def _fit(kind: Any, callbacks: list[Any], folder: Path, **more: Any) -> nn.Module:
    arguments = options(callbacks, folder)
    for named in ("max_epochs", "default_root_dir", "logger"):
        del arguments[named]
    made = kind(
        input_chunk_length=24, output_chunk_length=6, n_epochs=2, batch_size=16, random_state=1, work_dir=str(folder),
        pl_trainer_kwargs=arguments, **more,
    )  # fmt: skip
    made.fit(_series())
    made.predict(6)
    return made.model


@model(note="with save_checkpoints=True, which darts does not do by itself")
def tcn(callbacks: list[Any], folder: Path) -> nn.Module:
    """TCN."""
    return _fit(TCNModel, callbacks, folder, num_filters=4, save_checkpoints=True)


@model()
def tide(callbacks: list[Any], folder: Path) -> nn.Module:
    """TiDE."""
    return _fit(TiDEModel, callbacks, folder, hidden_size=16)


@model()
def transformer(callbacks: list[Any], folder: Path) -> nn.Module:
    """A Transformer."""
    return _fit(TransformerModel, callbacks, folder, d_model=16, nhead=2, dim_feedforward=32)
