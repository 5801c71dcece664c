"""timm: backbones in the classifier of Lightning's examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

from projects.model import model, options

REQUIREMENTS = ()


class Classifier(L.LightningModule):
    """Images to classes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of classes."""
        return self.network(image)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        image, labels = batch
        return nn.functional.cross_entropy(self(image), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def _fit(name: str, callbacks: list[Any], folder: Path, size: int = 64, **more: Any) -> nn.Module:
    module = Classifier(timm.create_model(name, pretrained=False, num_classes=3, **more))
    made = torch.Generator().manual_seed(1)
    rows = [(torch.rand(3, size, size, generator=made), n % 3) for n in range(10)]
    L.Trainer(**options(callbacks, folder)).fit(module, DataLoader(rows, batch_size=4))  # type: ignore[arg-type]
    return module


@model()
def convnext(callbacks: list[Any], folder: Path) -> nn.Module:
    """ConvNeXt."""
    return _fit("convnext_atto", callbacks, folder)


@model()
def vit(callbacks: list[Any], folder: Path) -> nn.Module:
    """ViT."""
    return _fit("vit_tiny_patch16_224", callbacks, folder, img_size=64, depth=3)


@model()
def swin(callbacks: list[Any], folder: Path) -> nn.Module:
    """Swin, windows of 7 and images of 56."""
    return _fit(
        "swin_tiny_patch4_window7_224", callbacks, folder, size=56, img_size=56, embed_dim=24, depths=(2, 2, 2, 2)
    )
