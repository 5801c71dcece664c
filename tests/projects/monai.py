"""MONAI: networks for medical images of three dimensions, in a LightningModule as in its tutorial on spleens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceLoss
from monai.networks.layers import Norm
from monai.networks.nets import UNETR, UNet
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, RandFlipd, ScaleIntensityd
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("monai==1.6.1", "einops==0.8.2")


class Net(L.LightningModule):
    """From MONAI's tutorial ``spleen_segmentation_3d_lightning``; its batches hold ``MetaTensor``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._model = network
        self.loss_function = DiceLoss(to_onehot_y=True, softmax=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of voxels."""
        return self._model(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, labels = batch["image"], batch["label"]
        return self.loss_function(self.forward(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self._model.parameters(), 1e-4)


def _fit(network: nn.Module, callbacks: list[Any], folder: Path) -> nn.Module:
    made = torch.Generator().manual_seed(1)
    images = [torch.rand(32, 32, 32, generator=made) for _ in range(5)]
    samples = [{"image": image.numpy(), "label": (image > 0.5).float().numpy()} for image in images]
    both = ["image", "label"]
    transforms = Compose(
        [
            EnsureChannelFirstd(both, channel_dim="no_channel"),
            EnsureTyped(both),
            ScaleIntensityd("image"),
            RandFlipd(both, prob=0.5).set_random_state(1),
        ]
    )
    loader = DataLoader(CacheDataset(samples, transforms, progress=False), batch_size=2, num_workers=0)
    module = Net(network)
    L.Trainer(**options(callbacks, folder)).fit(module, loader)
    return module


@model()
def unet(callbacks: list[Any], folder: Path) -> nn.Module:
    """U-Net of residual units."""
    network = UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm=Norm.BATCH)
    return _fit(network, callbacks, folder)


@model()
def unetr(callbacks: list[Any], folder: Path) -> nn.Module:
    """UNETR, a ViT as encoder."""
    network = UNETR(1, 2, (32, 32, 32), feature_size=8, hidden_size=48, mlp_dim=96, num_heads=2)
    return _fit(network, callbacks, folder)
