"""Whether exports can work on this machine, without a Trainer: one sentence for each thing that has to be right."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.errors import EnvironmentMismatchError, LightningTrtError
from lightning_trt_windows.settings import BackendName, ExportSettings

__all__ = ["Finding", "examine", "installed_versions"]

_LITTLE_SPACE = 2_000_000_000
"""Bytes below which a directory is worth a word."""


@dataclass(frozen=True)
class Finding:
    """What was found about one thing."""

    name: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name:12}  {self.text}"


def examine(directory: str | os.PathLike[str] = ".", backend: BackendName = "auto") -> list[Finding]:
    """Look at everything an export needs, and build one engine to see. Takes some seconds.

    Args:
        directory: Where artifacts will be written.
        backend: The backend that will be used.
    """
    place = Path(directory)
    return [
        _finding("system", _system),
        _finding("lightning", _lightning),
        _finding("backend", lambda: _backend(backend)),
        _finding("directory", lambda: _directory(place)),
        _finding("export", lambda: _export(backend)),
    ]


def _finding(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except LightningTrtError as error:
        return Finding(name, False, str(error))
    # a broken installation raises anything, and that is what is looked for
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}")


def _system() -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EnvironmentMismatchError(
            f"exports are made on Linux x86-64, this is {platform.system()} {platform.machine()}; artifacts can be "
            "inspected and loaded here"
        )
    return f"Linux x86-64, Python {platform.python_version()}"


def _lightning() -> str:
    for distribution in ("lightning", "pytorch-lightning"):
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    raise EnvironmentMismatchError("Lightning is not installed; the callback needs it: pip install lightning")


def _backend(name: BackendName) -> str:
    from lightning_trt_windows.backends import get_backend

    backend = get_backend(name)
    backend.check(ExportSettings(backend=name))
    return f"{backend.name}, with {installed_versions()}"


def installed_versions() -> str:
    """What of PyTorch, Torch-TensorRT and TensorRT is installed, in which versions."""
    from lightning_trt_windows._compat.bindings import DISTRIBUTIONS, installed_bindings_name

    bindings = filter(None, map(installed_bindings_name, DISTRIBUTIONS))
    return ", ".join(filter(None, map(_installed, ("torch", "torch-tensorrt-rtx", "torch-tensorrt", *bindings))))


def _installed(distribution: str) -> str | None:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return None


def _directory(place: Path) -> str:
    with tempfile.TemporaryFile(dir=place):
        pass
    free = shutil.disk_usage(place).free
    if free < _LITTLE_SPACE:
        raise EnvironmentMismatchError(f"{place} has only {readable_size(free)} of free space")
    return f"{place} can be written to and has {readable_size(free)} of free space"


def _export(backend: BackendName) -> str:
    import torch

    from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
    from lightning_trt_windows.export.pipeline import export_module

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    with tempfile.TemporaryDirectory() as folder:
        inputs = {"input": InputSpec((DimRange(1, 2, 8), 4))}
        artifact = export_module(module, inputs, Path(folder) / "doctor.windows.ep", backend=backend)
        seconds = artifact.manifest.timings.compile
        return f"a small module was compiled in {seconds:.1f} s, for GPUs " + ", ".join(
            artifact.manifest.backend.compute_capabilities
        )
