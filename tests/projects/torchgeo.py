"""torchgeo: tasks for satellite images, each a LightningModule of its own, with its batches of dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules.utils import collate_fn_detection
from torchgeo.trainers import ChangeDetectionTask, ClassificationTask, ObjectDetectionTask, SemanticSegmentationTask

from projects.model import model, options

REQUIREMENTS = ("torchgeo==0.8.1", "pycocotools==2.0.11")


class Scenes(Dataset[dict[str, torch.Tensor]]):
    """Samples as torchgeo's datasets give them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        made = torch.Generator().manual_seed(index)
        if self.kind == "change":
            image = torch.rand(2, 3, 64, 64, generator=made)
            return {"image": image, "mask": (image[:1, 0] > 0.5).long()}
        image = torch.rand(4, 64, 64, generator=made)
        if self.kind == "class":
            return {"image": image, "label": torch.tensor(index % 3)}
        if self.kind == "boxes":
            boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 24.0, 60.0, 60.0]])
            return {"image": image[:3], "bbox_xyxy": boxes, "label": torch.tensor([1, 1])}
        return {"image": image, "mask": (image[0] > 0.5).long()}


def _fit(task: L.LightningModule, kind: str, callbacks: list[Any], folder: Path) -> nn.Module:
    collate = collate_fn_detection if kind == "boxes" else None
    loader: Any = DataLoader(Scenes(kind), batch_size=4, collate_fn=collate)
    L.Trainer(**options(callbacks, folder, num_sanity_val_steps=0)).fit(task, loader, loader)
    return task


@model()
def classification(callbacks: list[Any], folder: Path) -> nn.Module:
    """Scenes to classes."""
    return _fit(ClassificationTask("resnet18", in_channels=4, num_classes=3), "class", callbacks, folder)


@model()
def segmentation(callbacks: list[Any], folder: Path) -> nn.Module:
    """U-Net with a ResNet-18."""
    task = SemanticSegmentationTask("unet", "resnet18", in_channels=4, num_classes=2)
    return _fit(task, "mask", callbacks, folder)


@model()
def change_detection(callbacks: list[Any], folder: Path) -> nn.Module:
    """Two images to a mask, a siamese U-Net."""
    task = ChangeDetectionTask("fcsiamdiff", "resnet18", in_channels=3)
    return _fit(task, "change", callbacks, folder)


@model()
def detection(callbacks: list[Any], folder: Path) -> nn.Module:
    """Faster R-CNN."""
    task = ObjectDetectionTask("faster-rcnn", "resnet18", in_channels=3, num_classes=2)
    return _fit(task, "boxes", callbacks, folder)
