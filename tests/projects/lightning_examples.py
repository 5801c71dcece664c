"""Lightning's own examples and demo models, as its packages ship them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.demos import LightningTransformer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from torch import nn
from torch.utils.data import DataLoader

from projects.model import model, options

REQUIREMENTS = ()


class LitAutoEncoder(L.LightningModule):
    """From Lightning's README: ``forward`` gives an embedding, and the step calls its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 128), nn.ReLU(), nn.Linear(128, 28 * 28))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In lightning, forward defines the prediction/inference actions."""
        return self.encoder(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, _ = batch
        x = x.view(x.size(0), -1)
        x_hat = self.decoder(self.encoder(x))
        loss = nn.functional.mse_loss(x_hat, x)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class LitClassifier(L.LightningModule):
    """From Lightning's example ``backbone_image_classifier``: the backbone is an argument."""

    def __init__(self, backbone: nn.Module, learning_rate: float = 0.0001) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone"])
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Use forward for inference and predictions."""
        return self.backbone(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("valid_loss", nn.functional.cross_entropy(self(x), y), on_step=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


class OfflineTransformer(LightningTransformer):
    """The demo, which downloads its text otherwise."""

    def prepare_data(self) -> None:
        """Nothing to prepare."""


def _images() -> DataLoader[Any]:
    made = torch.Generator().manual_seed(1)
    return DataLoader([(torch.rand(1, 28, 28, generator=made), n % 10) for n in range(20)], batch_size=8)  # type: ignore[arg-type]


@model()
def boring_model(callbacks: list[Any], folder: Path) -> nn.Module:
    """``BoringModel`` with its datamodule."""
    made = BoringModel()
    L.Trainer(**options(callbacks, folder)).fit(made, BoringDataModule())
    return made


@model()
def autoencoder(callbacks: list[Any], folder: Path) -> nn.Module:
    """The autoencoder of the README; ``forward`` is never called in training."""
    made = LitAutoEncoder()
    L.Trainer(**options(callbacks, folder)).fit(made, _images())
    return made


@model()
def backbone_image_classifier(callbacks: list[Any], folder: Path) -> nn.Module:
    """The classifier of the examples."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))
    made = LitClassifier(backbone)
    L.Trainer(**options(callbacks, folder)).fit(made, _images(), _images())
    return made


@model()
def transformer(callbacks: list[Any], folder: Path) -> nn.Module:
    """The demo Transformer, whose ``forward`` takes inputs and targets."""
    made = OfflineTransformer(vocab_size=50)
    words = torch.randint(0, 50, (400,), generator=torch.Generator().manual_seed(1))
    rows = [(words[start : start + 16], words[start + 1 : start + 17]) for start in range(0, 160, 8)]
    L.Trainer(**options(callbacks, folder)).fit(made, DataLoader(rows, batch_size=4))  # type: ignore[arg-type]
    return made
