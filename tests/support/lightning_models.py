"""Tiny LightningModules and DataModules that real Trainers train in the tests."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Data(L.LightningDataModule):
    """37 samples of 4 numbers in batches of 8, so that the last batch has 5."""

    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(37, 4, generator=generator)
        self.dataset = TensorDataset(x, x.sum(1, keepdim=True))

    def train_dataloader(self) -> Any:
        return DataLoader(self.dataset, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.dataset, self.batch_size)


class Regression(L.LightningModule):
    """A small net with dropout and BatchNorm."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.mse_loss(self(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.hparams["lr"])


class Untraceable(Regression):
    """torch.export cannot follow it."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            return x
        return super().forward(x)


def trainer(directory: Any, *callbacks: Any, **options: Any) -> L.Trainer:
    """A quiet Trainer on the CPU that writes below ``directory``."""
    defaults: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(default_root_dir=directory, callbacks=list(callbacks), **{**defaults, **options})
