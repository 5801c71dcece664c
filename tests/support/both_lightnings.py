"""A module, data and a training of either Lightning."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["classes", "fit"]


def classes(name: str) -> tuple[Any, Any, Any]:
    """The Lightning of that name, and a module and a datamodule that belong to it."""
    L = importlib.import_module(name)  # noqa: N806 -- its usual name

    class Data(L.LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.rand(24, 4), torch.rand(24, 1)), 8)

    class Model(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return nn.functional.mse_loss(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    return L, Model, Data


def fit(name: str, directory: Path, export: Any, **options: Any) -> Any:
    """Train for one epoch with the Lightning of that name; gives the Trainer."""
    L, model, data = classes(name)  # noqa: N806
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    saver = L.callbacks.ModelCheckpoint(directory, filename="a")
    trainer = L.Trainer(default_root_dir=directory, max_epochs=1, callbacks=[saver, export], **quiet, **options)
    trainer.fit(model(), datamodule=data())
    return trainer
