"""GluonTS: estimators that make their own Trainer and LightningModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pandas
from gluonts.dataset.common import ListDataset
from gluonts.torch import DeepAREstimator, PatchTSTEstimator, SimpleFeedForwardEstimator
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("gluonts[torch]==0.17.0",)


def _fit(kind: Any, callbacks: list[Any], folder: Path, **more: Any) -> nn.Module:
    random = numpy.random.default_rng(1)
    numpy.random.seed(1)
    start = pandas.Period("2024-01-01", freq="D")
    data = ListDataset(
        [{"start": start, "target": numpy.sin(numpy.arange(90) / (3 + n)) + random.random(90)} for n in range(4)],
        freq="D",
    )
    made = kind(
        prediction_length=7, batch_size=8, num_batches_per_epoch=4, trainer_kwargs=options(callbacks, folder), **more
    )
    trained = made.train_model(data)
    return trained.trained_net


@model()
def simple_feed_forward(callbacks: list[Any], folder: Path) -> nn.Module:
    """A feed-forward network with a distribution."""
    return _fit(SimpleFeedForwardEstimator, callbacks, folder, hidden_dimensions=[16], context_length=28)


@model()
def patchtst(callbacks: list[Any], folder: Path) -> nn.Module:
    """PatchTST."""
    return _fit(PatchTSTEstimator, callbacks, folder, patch_len=7, d_model=16, nhead=2, context_length=28)


@model()
def deepar(callbacks: list[Any], folder: Path) -> nn.Module:
    """DeepAR."""
    return _fit(DeepAREstimator, callbacks, folder, freq="D", hidden_size=8, context_length=28)
