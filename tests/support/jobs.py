"""Jobs as a training hands them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.export.job import Job
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.settings import ExportSettings
from support.lightning_models import Data

__all__ = ["checkpoint", "job"]


def checkpoint(path: Path, module: torch.nn.Module, **more: Any) -> Path:
    """A checkpoint of ``module``, as Lightning writes it."""
    torch.save({"state_dict": module.state_dict(), "epoch": 0, "global_step": 5, **more}, path)
    return path


def job(directory: Path, module: Any, settings: ExportSettings | None = None) -> Job:
    """A job with its program in a file and its weights in a checkpoint."""
    path = checkpoint(directory / "a.ckpt", module)
    discovered = discover(module, datamodule=Data())
    prepared = prepare(
        module, discovered, ArtifactPaths.beside(path), ExportOptions(settings=settings or ExportSettings())
    )
    return prepared.saved(directory / "program.pt2", weights=path)
