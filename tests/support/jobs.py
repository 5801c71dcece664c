"""Jobs as a training hands them over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.artifact.shapes import InputSpec
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.export.job import Job, SavedProgram
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.settings import ExportSettings
from support.lightning_models import Data

__all__ = ["checkpoint", "job", "jobs_of"]


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


def jobs_of(
    module: nn.Module, spec: InputSpec, directory: Path, count: int, *, argument: str = "x", std: float = 0.1
) -> list[Job]:
    """Builds of one program with weights that differ, of the deviation ``std``, as a run hands them over."""
    torch.manual_seed(0)
    module.eval()
    jobs: list[Job] = []
    for number in range(count):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=std)
        path = checkpoint(directory / f"{number}.ckpt", module, global_step=number)
        if not jobs:
            found = discover(module, inputs={argument: spec})
            first = prepare(module, found, ArtifactPaths.beside(path), ExportOptions())
            jobs.append(first.saved(directory / "program.pt2", weights=path))
            continue
        program = SavedProgram(directory / "program.pt2", path)
        jobs.append(replace(jobs[0], program=program, paths=ArtifactPaths.beside(path)))
    return jobs
