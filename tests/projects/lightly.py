"""lightly: self-supervised learning, the LightningModules of its own examples with its transforms and losses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy
import torch
import torchvision
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss, SwaVLoss
from lightly.models.modules import (
    BYOLPredictionHead,
    BYOLProjectionHead,
    DINOProjectionHead,
    SimCLRProjectionHead,
    SwaVProjectionHead,
    SwaVPrototypes,
)
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import BYOLTransform, DINOTransform, SimCLRTransform, SwaVTransform
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from projects.model import model, options

REQUIREMENTS = ("lightly==1.6.0",)


class Images(Dataset[Any]):
    """Views of random images, with a target, as a labelled folder gives them."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        pixels = numpy.random.default_rng(index).integers(0, 255, (40, 40, 3), dtype="uint8")
        return self.transform(Image.fromarray(pixels)), 0


def _backbone() -> nn.Module:
    return nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])


class SimCLR(L.LightningModule):
    """From ``examples/pytorch_lightning/simclr.py``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _backbone()
        self.projection_head = SimCLRProjectionHead(512, 128, 32)
        self.criterion = NTXentLoss()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A projection."""
        x = self.backbone(x).flatten(start_dim=1)
        return self.projection_head(x)

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        x0, x1 = batch[0]
        return self.criterion(self.forward(x0), self.forward(x1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.06)


class BYOL(L.LightningModule):
    """From ``examples/pytorch_lightning/byol.py``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _backbone()
        self.projection_head = BYOLProjectionHead(512, 64, 32)
        self.prediction_head = BYOLPredictionHead(32, 64, 32)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A prediction."""
        y = self.backbone(x).flatten(start_dim=1)
        return self.prediction_head(self.projection_head(y))

    def forward_momentum(self, x: torch.Tensor) -> torch.Tensor:
        """The projection of the other branch."""
        y = self.backbone_momentum(x).flatten(start_dim=1)
        return self.projection_head_momentum(y).detach()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        momentum = cosine_schedule(self.current_epoch, 10, 0.996, 1)
        update_momentum(self.backbone, self.backbone_momentum, m=momentum)
        update_momentum(self.projection_head, self.projection_head_momentum, m=momentum)
        x0, x1 = batch[0]
        p0, z0, p1, z1 = self.forward(x0), self.forward_momentum(x0), self.forward(x1), self.forward_momentum(x1)
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.06)


class SwaV(L.LightningModule):
    """From ``examples/pytorch_lightning/swav.py``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _backbone()
        self.projection_head = SwaVProjectionHead(512, 64, 32)
        self.prototypes = SwaVPrototypes(32, n_prototypes=16)
        self.criterion = SwaVLoss()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the prototypes."""
        x = self.backbone(x).flatten(start_dim=1)
        x = self.projection_head(x)
        x = nn.functional.normalize(x, dim=1, p=2)
        return self.prototypes(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.prototypes.normalize()
        crops = batch[0]
        features = [self.forward(x.to(self.device)) for x in crops]
        return self.criterion(features[:2], features[2:])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001)


class DINO(L.LightningModule):
    """From ``examples/pytorch_lightning/dino.py``, with a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        backbone = _backbone()
        self.student_backbone = backbone
        self.student_head = DINOProjectionHead(512, 64, 16, 64, freeze_last_layer=1)
        self.teacher_backbone = copy.deepcopy(backbone)
        self.teacher_head = DINOProjectionHead(512, 64, 16, 64)
        deactivate_requires_grad(self.teacher_backbone)
        deactivate_requires_grad(self.teacher_head)
        self.criterion = DINOLoss(output_dim=64, warmup_teacher_temp_epochs=5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the student gives."""
        y = self.student_backbone(x).flatten(start_dim=1)
        return self.student_head(y)

    def forward_teacher(self, x: torch.Tensor) -> torch.Tensor:
        """What the teacher gives."""
        y = self.teacher_backbone(x).flatten(start_dim=1)
        return self.teacher_head(y)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        momentum = cosine_schedule(self.current_epoch, 10, 0.996, 1)
        update_momentum(self.student_backbone, self.teacher_backbone, m=momentum)
        update_momentum(self.student_head, self.teacher_head, m=momentum)
        views = [view.to(self.device) for view in batch[0]]
        teacher_out = [self.forward_teacher(view) for view in views[:2]]
        student_out = [self.forward(view) for view in views]
        return self.criterion(teacher_out, student_out, epoch=self.current_epoch)

    def on_after_backward(self) -> None:
        self.student_head.cancel_last_layer_gradients(current_epoch=self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001)


def _fit(module: L.LightningModule, transform: Any, callbacks: list[Any], folder: Path) -> nn.Module:
    loader: Any = DataLoader(Images(transform), batch_size=4, shuffle=True, drop_last=True)
    L.Trainer(**options(callbacks, folder)).fit(module, loader)
    return module


@model()
def simclr(callbacks: list[Any], folder: Path) -> nn.Module:
    """SimCLR."""
    return _fit(SimCLR(), SimCLRTransform(input_size=32, gaussian_blur=0.0), callbacks, folder)


@model()
def byol(callbacks: list[Any], folder: Path) -> nn.Module:
    """BYOL, whose other branch is a method besides ``forward``."""
    transform = BYOLTransform(
        view_1_transform=BYOLView1Transform(input_size=32, gaussian_blur=0.0),
        view_2_transform=BYOLView2Transform(input_size=32, gaussian_blur=0.0),
    )
    return _fit(BYOL(), transform, callbacks, folder)


@model()
def swav(callbacks: list[Any], folder: Path) -> nn.Module:
    """SwaV, crops of two sizes."""
    transform = SwaVTransform(crop_sizes=(64, 32), crop_counts=(2, 3), gaussian_blur=0.0)
    return _fit(SwaV(), transform, callbacks, folder)


@model()
def dino(callbacks: list[Any], folder: Path) -> nn.Module:
    """DINO, views of two sizes."""
    transform = DINOTransform(global_crop_size=64, local_crop_size=32, n_local_views=3, gaussian_blur=(0.0, 0.0, 0.0))
    return _fit(DINO(), transform, callbacks, folder)
