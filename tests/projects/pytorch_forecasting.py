"""pytorch-forecasting: forecasts of many time series, with its own ``TimeSeriesDataSet`` and loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy
import pandas
from pytorch_forecasting import DeepAR, NBeats, TemporalFusionTransformer, TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import NormalDistributionLoss, QuantileLoss
from torch import nn

from lightning_trt_windows import DimRange, InputSpec
from projects.model import model, options

REQUIREMENTS = ("pytorch-forecasting==1.8.0", "pandas==3.0.6")


def _frame() -> pandas.DataFrame:
    random = numpy.random.default_rng(1)
    series = [
        pandas.DataFrame(
            {
                "series": str(number),
                "time": numpy.arange(60),
                "month": (numpy.arange(60) % 12).astype(str),
                "price": random.random(60),
                "value": numpy.sin(numpy.arange(60) / (3 + number)) + random.random(60) / 10,
            }
        )
        for number in range(4)
    ]
    return pandas.concat(series, ignore_index=True)


def _data(**more: Any) -> TimeSeriesDataSet:
    return TimeSeriesDataSet(
        _frame(),
        time_idx="time",
        target="value",
        group_ids=["series"],
        categorical_encoders={"series": NaNLabelEncoder().fit(_frame()["series"])},
        max_encoder_length=24,
        max_prediction_length=6,
        time_varying_unknown_reals=["value"],
        **more,
    )


def _fit(module: L.LightningModule, data: TimeSeriesDataSet, callbacks: list[Any], folder: Path) -> nn.Module:
    trainer = L.Trainer(**options(callbacks, folder, gradient_clip_val=0.1, limit_train_batches=4))
    loader = data.to_dataloader(train=True, batch_size=16, num_workers=0)
    trainer.fit(module, loader, data.to_dataloader(train=False, batch_size=16, num_workers=0))
    return module


@model()
def nbeats(callbacks: list[Any], folder: Path) -> nn.Module:
    """N-BEATS."""
    data = _data()
    return _fit(NBeats.from_dataset(data, widths=[16, 32], num_blocks=[1, 1]), data, callbacks, folder)


@model()
def temporal_fusion_transformer(callbacks: list[Any], folder: Path) -> nn.Module:
    """TFT with static, categorical and continuous variables, encoders of several lengths."""
    data = _data(
        min_encoder_length=12,
        static_categoricals=["series"],
        time_varying_known_categoricals=["month"],
        time_varying_known_reals=["price", "time"],
        add_relative_time_idx=True,
        add_target_scales=True,
        add_encoder_length=True,
    )
    made = TemporalFusionTransformer.from_dataset(
        data, hidden_size=8, attention_head_size=2, hidden_continuous_size=4, loss=QuantileLoss()
    )
    return _fit(made, data, callbacks, folder)


_BATCH = DimRange(1, 16, 16, "batch")


@model(
    way_on={
        # all but the encoder, which packs its sequences
        "method": "decode_all",
        "inputs": {
            "x": InputSpec((_BATCH, 6, 5)),
            "hidden_state": [InputSpec((2, _BATCH, 8)), InputSpec((2, _BATCH, 8))],
            "lengths": None,
        },
    }
)
def deepar(callbacks: list[Any], folder: Path) -> nn.Module:
    """DeepAR with an LSTM."""
    data = _data(static_categoricals=["series"], time_varying_known_reals=["price"])
    made = DeepAR.from_dataset(data, hidden_size=8, rnn_layers=2, loss=NormalDistributionLoss())
    return _fit(made, data, callbacks, folder)
