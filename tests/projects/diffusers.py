"""diffusers: a denoising U-Net and an autoencoder in a LightningModule, as its training examples train them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DModel
from torch import nn
from torch.utils.data import DataLoader

from projects.model import model, options

REQUIREMENTS = ("diffusers==0.42.1",)


class Diffusion(L.LightningModule):
    """From Lightning's tutorial on diffusers: no ``forward``, the step calls the network with noise and timesteps."""

    def __init__(self) -> None:
        super().__init__()
        self.model = UNet2DModel(
            sample_size=32, in_channels=3, out_channels=3, block_out_channels=(16, 32), norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        self.scheduler = DDPMScheduler()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        noise = torch.randn_like(batch)
        steps = torch.randint(self.scheduler.config.num_train_timesteps, (batch.size(0),), device=self.device)
        noisy = self.scheduler.add_noise(batch, noise, steps)
        return nn.functional.mse_loss(self.model(noisy, steps).sample, noise)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


class Autoencoder(L.LightningModule):
    """A variational autoencoder that gives what it reconstructs."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = AutoencoderKL(block_out_channels=(16,), norm_num_groups=8, latent_channels=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The image as it is reconstructed."""
        return self.vae(image).sample

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return nn.functional.mse_loss(self(batch), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def _fit(module: L.LightningModule, callbacks: list[Any], folder: Path) -> nn.Module:
    images = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    L.Trainer(**options(callbacks, folder)).fit(module, DataLoader(images, batch_size=4))  # type: ignore[arg-type]
    return module


@model()
def unet(callbacks: list[Any], folder: Path) -> nn.Module:
    """A denoising U-Net."""
    return _fit(Diffusion(), callbacks, folder)


@model()
def autoencoder(callbacks: list[Any], folder: Path) -> nn.Module:
    """AutoencoderKL."""
    return _fit(Autoencoder(), callbacks, folder)
