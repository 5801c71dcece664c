"""torchvision: classifiers, segmentation and detectors, each in the LightningModule that one writes around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision.models import detection

from projects.model import model, options

REQUIREMENTS = ()


class Boxes(Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """Images with two boxes each, as torchvision's detectors want them."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(index))
        boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 24.0, 60.0, 60.0]])
        return image, {"boxes": boxes, "labels": torch.tensor([1, 1])}


def _collate(batch: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*batch))


class Detector(L.LightningModule):
    """Losses in training, boxes otherwise."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network

    def forward(self, images: list[torch.Tensor], targets: Any = None) -> Any:
        """What the detector gives."""
        return self.model(images, targets)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, targets = batch
        losses = self(list(images), list(targets))
        return torch.stack(list(losses.values())).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class Classifier(L.LightningModule):
    """Images to classes, or pixels to classes."""

    def __init__(self, network: nn.Module, segments: bool = False) -> None:
        super().__init__()
        self.model = network
        self.segments = segments

    def forward(self, image: torch.Tensor) -> Any:
        """What the network gives."""
        return self.model(image)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        image, labels = batch
        found = self(image)
        if self.segments:
            found, labels = found["out"], (image[:, 0] > 0.5).long()
        return nn.functional.cross_entropy(found, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def _detect(network: nn.Module, callbacks: list[Any], folder: Path) -> nn.Module:
    module = Detector(network)
    loader: Any = DataLoader(Boxes(), batch_size=2, collate_fn=_collate)
    L.Trainer(**options(callbacks, folder, max_epochs=1)).fit(module, loader)
    return module


def _classify(module: nn.Module, callbacks: list[Any], folder: Path) -> nn.Module:
    made = torch.Generator().manual_seed(1)
    rows = [(torch.rand(3, 64, 64, generator=made), n % 3) for n in range(10)]
    loader: Any = DataLoader(rows, batch_size=4)  # type: ignore[arg-type]
    L.Trainer(**options(callbacks, folder)).fit(module, loader)
    return module


@model()
def resnet18(callbacks: list[Any], folder: Path) -> nn.Module:
    """ResNet-18."""
    return _classify(Classifier(models.resnet18(num_classes=3)), callbacks, folder)


@model()
def swin_v2_tiny(callbacks: list[Any], folder: Path) -> nn.Module:
    """Swin V2, attention in windows."""
    network = models.SwinTransformer(
        [4, 4], 24, [1, 1, 2, 1], [1, 2, 4, 8], [8, 8], num_classes=3,
        block=models.swin_transformer.SwinTransformerBlockV2, downsample_layer=models.swin_transformer.PatchMergingV2,
    )  # fmt: skip
    return _classify(Classifier(network), callbacks, folder)


@model()
def lraspp(callbacks: list[Any], folder: Path) -> nn.Module:
    """LR-ASPP, segmentation with a MobileNetV3."""
    network = models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    return _classify(Classifier(network, segments=True), callbacks, folder)


@model()
def retinanet(callbacks: list[Any], folder: Path) -> nn.Module:
    """RetinaNet."""
    network = detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=64, max_size=64
    )
    return _detect(network, callbacks, folder)


@model()
def faster_rcnn(callbacks: list[Any], folder: Path) -> nn.Module:
    """Faster R-CNN."""
    network = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=64, max_size=64
    )
    return _detect(network, callbacks, folder)
