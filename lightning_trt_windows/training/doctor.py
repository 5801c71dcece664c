"""Whether exports can work on this machine, without a Trainer: one sentence for each thing that has to be right."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.runtime.pc_report import Finding, directory_finding, finding
from lightning_trt_windows.settings import BackendName, ExportSettings

__all__ = ["examine", "installed_versions"]


def examine(directory: str | os.PathLike[str] = ".", backend: BackendName = "auto") -> list[Finding]:
    """Look at everything an export needs, and build one engine to see. Takes some seconds.

    Args:
        directory: Where artifacts will be written.
        backend: The backend that will be used.

    Returns:
        Findings, in the order of the layers that need each other.
    """
    place = Path(directory)
    return [
        finding("system", _system),
        finding("lightning", _lightning),
        finding("backend", lambda: _backend(backend)),
        finding("directory", lambda: directory_finding(place)),
        finding("export", lambda: _export(backend)),
    ]


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
