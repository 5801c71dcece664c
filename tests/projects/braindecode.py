"""braindecode: networks for EEG in a LightningModule, as in its example on training with Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from braindecode.models import EEGConformer, EEGNet, ShallowFBCSPNet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from projects.model import model, options

REQUIREMENTS = ("braindecode==1.8.1",)


class LitModule(L.LightningModule):
    """From braindecode's example; ``forward`` is not defined there, and the step calls ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return self.loss(self.module(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def _fit(network: nn.Module, callbacks: list[Any], folder: Path) -> nn.Module:
    made = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(20, 8, 500, generator=made), torch.arange(20) % 3)
    module = LitModule(network)
    L.Trainer(**options(callbacks, folder)).fit(module, DataLoader(data, batch_size=8))
    return module


@model()
def shallow_net(callbacks: list[Any], folder: Path) -> nn.Module:
    """ShallowFBCSPNet."""
    return _fit(ShallowFBCSPNet(n_chans=8, n_outputs=3, n_times=500), callbacks, folder)


@model()
def eegnet(callbacks: list[Any], folder: Path) -> nn.Module:
    """EEGNet."""
    return _fit(EEGNet(n_chans=8, n_outputs=3, n_times=500), callbacks, folder)


@model()
def conformer(callbacks: list[Any], folder: Path) -> nn.Module:
    """EEGConformer."""
    return _fit(EEGConformer(n_chans=8, n_outputs=3, n_times=500), callbacks, folder)
