"""anomalib: detection of anomalies, with its own Engine and folders of images; batches are validating dataclasses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy
import timm
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import EfficientAd, Padim, Patchcore, Stfpm
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from anomalib.utils.path import get_pretrained_weights_dir
from PIL import Image
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("anomalib==2.7.0",)


def _images(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    random = numpy.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype="uint8")).save(folder / f"{number}.png")
    return folder


def _fit(
    module: Any, callbacks: list[Any], folder: Path, batch: int = 4, good_ones: str | None = None, **more: Any
) -> nn.Module:
    """Fit on folders of images; those for tests among the good ones are from a folder ``good_ones`` of their own."""
    _images(folder / "data" / "good", 8, 1)
    _images(folder / "data" / "bad", 4, 2)
    if good_ones:
        _images(folder / "data" / good_ones, 8, 4)
    data = Folder(
        "generated", normal_dir="good", abnormal_dir="bad", normal_test_dir=good_ones, root=folder / "data",
        train_batch_size=batch, eval_batch_size=batch, num_workers=0,
    )  # fmt: skip
    Engine(**{**options(callbacks, folder / "results"), "max_epochs": 1, **more}).fit(module, datamodule=data)
    return module


def _without_download() -> Any:
    """Networks of timm with random weights, where anomalib would download trained ones."""
    create = timm.create_model

    def random_weights(*args: Any, **kwargs: Any) -> nn.Module:
        return create(*args, **{**kwargs, "pretrained": False})

    return mock.patch.object(timm, "create_model", random_weights)


@model()
def padim(callbacks: list[Any], folder: Path) -> nn.Module:
    """PaDiM, which fits Gaussians in one epoch."""
    pre = Padim.configure_pre_processor((64, 64))
    return _fit(Padim(pre_trained=False, n_features=20, pre_processor=pre), callbacks, folder)


@model()
def patchcore(callbacks: list[Any], folder: Path) -> nn.Module:
    """PatchCore, whose memory bank is empty until training ends."""
    pre = Patchcore.configure_pre_processor((64, 64))
    made = Patchcore(backbone="resnet18", pre_trained=False, num_neighbors=3, pre_processor=pre)
    return _fit(made, callbacks, folder)


@model()
def stfpm(callbacks: list[Any], folder: Path) -> nn.Module:
    """Student and teacher."""
    with _without_download():
        made = Stfpm(pre_processor=Stfpm.configure_pre_processor((64, 64)))
    return _fit(made, callbacks, folder)


@model()
def efficient_ad(callbacks: list[Any], folder: Path) -> nn.Module:
    """EfficientAD; its teacher's weights and ImageNette are made here."""
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(folder / "cache")}):
        weights = get_pretrained_weights_dir() / "efficientad_pretrained_weights"
        weights.mkdir(parents=True)
        torch.save(SmallPatchDescriptionNetwork(384).state_dict(), weights / "pretrained_teacher_small.pth")
        _images(folder / "imagenette" / "n01440764", 4, 3)
        made = EfficientAd(
            imagenet_dir=folder / "imagenette", pre_processor=EfficientAd.configure_pre_processor((256, 256))
        )
        # its quantiles are those of good images among the ones for validation, which are half of those for tests
        return _fit(made, callbacks, folder, batch=1, good_ones="good_too")
