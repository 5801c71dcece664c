"""neuralforecast: models that make their own Trainer and keep its arguments and callbacks as hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import neuralforecast.models
import numpy
import pandas
from neuralforecast import NeuralForecast
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("neuralforecast==3.3.0",)


def _frame() -> pandas.DataFrame:
    days = pandas.date_range("2024-01-01", periods=80, freq="D")
    random = numpy.random.default_rng(1)
    return pandas.concat(
        [
            pandas.DataFrame(
                {"unique_id": f"s{n}", "ds": days, "y": numpy.sin(numpy.arange(80) / (3 + n)) + random.random(80) / 10}
            )
            for n in range(3)
        ]
    )


def _fit(name: str, callbacks: list[Any], folder: Path, **more: Any) -> nn.Module:
    arguments = options(callbacks, folder)
    del arguments["max_epochs"]
    made = getattr(neuralforecast.models, name)(
        h=7, input_size=28, max_steps=8, batch_size=2, windows_batch_size=16, **arguments, **more,
    )  # fmt: skip
    forecast = NeuralForecast(models=[made], freq="D")
    forecast.fit(_frame())
    forecast.predict()
    return forecast.models[0]


@model(note="with enable_checkpointing=True, which neuralforecast switches off")
def nhits(callbacks: list[Any], folder: Path) -> nn.Module:
    """NHITS."""
    return _fit(
        "NHITS", callbacks, folder, enable_checkpointing=True, n_freq_downsample=[2, 1, 1], mlp_units=[[32, 32]] * 3
    )


@model()
def patchtst(callbacks: list[Any], folder: Path) -> nn.Module:
    """PatchTST."""
    return _fit("PatchTST", callbacks, folder, hidden_size=16, n_heads=2, linear_hidden_size=32, encoder_layers=1)


@model()
def lstm(callbacks: list[Any], folder: Path) -> nn.Module:
    """An LSTM."""
    return _fit("LSTM", callbacks, folder, encoder_hidden_size=16, decoder_hidden_size=16)
