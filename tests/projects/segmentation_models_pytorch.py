"""segmentation-models-pytorch: encoders and decoders, in the LightningModule of the project's own example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from projects.model import model, options

REQUIREMENTS = ("segmentation-models-pytorch==0.6.0",)


class Pets(Dataset[dict[str, torch.Tensor]]):
    """Samples as ``smp.datasets.SimpleOxfordPetDataset`` gives them."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(index))
        return {"image": image * 255, "mask": (image[:1] > 0.5).float()}


class PetModel(L.LightningModule):
    """From the project's example ``binary_segmentation_intro``."""

    def __init__(self, arch: str, encoder_name: str, in_channels: int, out_classes: int, **kwargs: Any) -> None:
        super().__init__()
        self.model = smp.create_model(
            arch,
            encoder_name=encoder_name,
            encoder_weights=None,
            in_channels=in_channels,
            classes=out_classes,
            **kwargs,
        )
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) * 255)
        self.loss_fn = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the mask."""
        image = (image - self.mean) / self.std
        return self.model(image)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.loss_fn(self.forward(batch["image"]), batch["mask"])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log("valid_loss", self.loss_fn(self.forward(batch["image"]), batch["mask"]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=1e-5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _fit(module: L.LightningModule, callbacks: list[Any], folder: Path) -> nn.Module:
    trainer = L.Trainer(**options(callbacks, folder))
    trainer.fit(module, DataLoader(Pets(), batch_size=4, shuffle=True), DataLoader(Pets(), batch_size=4))
    return module


@model()
def unet(callbacks: list[Any], folder: Path) -> nn.Module:
    """U-Net with a ResNet-18."""
    return _fit(PetModel("Unet", "resnet18", in_channels=3, out_classes=1), callbacks, folder)


@model()
def fpn(callbacks: list[Any], folder: Path) -> nn.Module:
    """Feature pyramid with a MobileNetV2, as in the example."""
    return _fit(PetModel("FPN", "mobilenet_v2", in_channels=3, out_classes=1), callbacks, folder)


@model()
def deeplab_v3_plus(callbacks: list[Any], folder: Path) -> nn.Module:
    """DeepLabV3+ with an EfficientNet-B0."""
    return _fit(PetModel("DeepLabV3Plus", "efficientnet-b0", in_channels=3, out_classes=1), callbacks, folder)
