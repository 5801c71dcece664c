"""Segmentation of images of any size: height and width stay free, from the sizes that the training saw.

    python examples/segmentation.py

A small U-Net finds round and square things in noisy pictures that are drawn as they are needed, each batch in a size
of its own. Half a minute on two CPU cores, no GPU needed. Height and width of the artifact's input are what the batches
showed, widened by a quarter.
"""

from __future__ import annotations

import argparse
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lightning_trt_windows import RangeOptions, WindowsExport

SIZES = (40, 48, 56, 64, 72, 80)
"""Heights and widths of the pictures, in pixels."""


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Pictures as float32 [batch, 3, height, width], masks as int64 [batch, height, width].

    In a mask, 0 is nothing, 1 something round, 2 something square. Each item is a whole batch of one size; the same
    index is always the same batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 10_000 + index)
        height, width = (SIZES[int(i)] for i in torch.randint(len(SIZES), (2,), generator=generator))
        mask = torch.stack([self.draw(height, width, generator) for _ in range(self.batch_size)])
        colours = torch.tensor([[0.2, 0.2, 0.2], [0.8, 0.4, 0.2], [0.2, 0.5, 0.8]])
        picture = colours[mask].permute(0, 3, 1, 2)
        return picture + 0.3 * torch.randn(picture.shape, generator=generator), mask

    @staticmethod
    def draw(height: int, width: int, generator: torch.Generator) -> Tensor:
        """Classes of the pixels of one picture with two things in it."""
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        mask = torch.zeros(height, width, dtype=torch.int64)
        for kind in (1, 2):
            cy, cx, radius = (torch.rand(3, generator=generator) * torch.tensor([height, width, 8])).tolist()
            dy, dx = (y - cy).abs(), (x - cx).abs()
            inside = dy**2 + dx**2 < (radius + 5) ** 2 if kind == 1 else torch.maximum(dy, dx) < radius + 5
            mask[inside] = kind
        return mask


class UNet(L.LightningModule):
    """Two steps down and two steps up, so that heights and widths must be multiples of 4."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.top = block(3, width)
        self.middle = block(width, 2 * width)
        self.bottom = block(2 * width, 2 * width)
        self.up = block(4 * width, width)
        self.out = nn.Sequential(block(2 * width, width), nn.Conv2d(width, 3, 1))

    def forward(self, picture: Tensor) -> Tensor:
        """What is exported: scores [batch, 3, height, width] of pictures [batch, 3, height, width]."""
        top = self.top(picture)
        middle = self.middle(F.max_pool2d(top, 2))
        bottom = self.bottom(F.max_pool2d(middle, 2))
        joined = self.up(torch.cat([F.interpolate(bottom, scale_factor=2.0), middle], 1))
        scores: Tensor = self.out(torch.cat([F.interpolate(joined, scale_factor=2.0), top], 1))
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy, pixel by pixel."""
        picture, mask = batch
        return F.cross_entropy(self(picture), mask)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``iou``: intersection over union, the mean of the two kinds of things."""
        picture, mask = batch
        found = self(picture).argmax(1)
        each = [((found == k) & (mask == k)).sum() / ((found == k) | (mask == k)).sum().clamp(min=1) for k in (1, 2)]
        self.log("iou", torch.stack(each).mean(), batch_size=len(picture))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 3e-3)


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    """3 x 3 convolution, normalised, rectified."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU())


def loader(batches: int, seed: int) -> DataLoader[Any]:
    """The dataset makes batches itself."""
    return DataLoader(Batches(batches, 8, seed), batch_size=None)


def main() -> None:
    """Train, export, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--directory", default="demo_runs/segmentation")
    arguments = parser.parse_args()
    L.seed_everything(7, verbose=False)
    windows = WindowsExport(ranges=RangeOptions(margin=0.25), on_error="raise")
    best = ModelCheckpoint(arguments.directory, monitor="iou", mode="max", filename="best-{epoch}")
    trainer = L.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[best, windows],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(UNet(), loader(30, seed=1), loader(8, seed=2))
    print(f"IoU {best.best_model_score:.2f} on pictures that were not trained on")
    for artifact in windows.artifacts:
        print(artifact)
        (spec,) = artifact.manifest.inputs
        for axis, name in enumerate(("batch", "channels", "height", "width")):
            step = f", multiples of {spec.multiple_of[axis]}" if spec.multiple_of[axis] > 1 else ""
            print(f"  {name}: {spec.min[axis]} to {spec.max[axis]}{step}, tuned for {spec.opt[axis]}")


if __name__ == "__main__":
    main()
