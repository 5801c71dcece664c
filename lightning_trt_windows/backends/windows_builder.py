"""Whether this machine can build TensorRT engines for Windows: its system, its GPU, NVIDIA's library for it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = ["RESOURCE", "BuildGpu", "build_gpu", "check_machine", "check_resource"]

RESOURCE = "libnvinfer_builder_resource_win"
"""Begins the name of the library that holds TensorRT's kernels for Windows; since TensorRT 10.3."""


@dataclass(frozen=True)
class BuildGpu:
    """The GPU that builds."""

    name: str
    capability: tuple[int, int]

    @property
    def capability_text(self) -> str:
        """As ``8.6``."""
        return f"{self.capability[0]}.{self.capability[1]}"


def check_machine() -> None:
    """Refuse systems on which TensorRT cannot build for Windows.

    Raises:
        EnvironmentMismatchError: This machine is not Linux on x86-64.
    """
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise EnvironmentMismatchError(
            f"backend 'tensorrt' builds engines for Windows on Linux x86-64 only, this is {platform.system()} "
            f"{platform.machine()}. Export on such a machine (WSL 2 is one), from the checkpoint, with: "
            "lightning-trt-windows export CHECKPOINT --module package.module:Class --backend tensorrt"
        )


def build_gpu() -> BuildGpu:
    """The GPU that builds, which is the first one that is visible.

    Returns:
        Its name and its compute capability.

    Raises:
        EnvironmentMismatchError: There is no visible CUDA device.
    """
    import torch

    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" CUDA_VISIBLE_DEVICES is {hidden!r}, which hides it." if hidden in ("", "-1") else ""
        raise EnvironmentMismatchError(
            f"backend 'tensorrt' times kernels on a GPU while it builds, and there is none here.{why} Build on a Linux "
            "machine with an NVIDIA GPU of the generation that you ship to, or use backend='tensorrt_rtx', which "
            'builds without a GPU: pip uninstall torch-tensorrt && pip install "lightning-trt-windows[rtx]"'
        )
    return BuildGpu(torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0))


def check_resource() -> None:
    """Refuse a TensorRT without its part for Windows. TensorRT must have been imported, which shows where it lies.

    Raises:
        EnvironmentMismatchError: ``libnvinfer_builder_resource_win`` is not where TensorRT looks for it.
    """
    folders = list(dict.fromkeys(_folders()))
    if not any(folder.is_dir() and any(folder.glob(f"{RESOURCE}*")) for folder in folders):
        looked = ", ".join(map(str, folders)) or "no folder, for TensorRT is not loaded"
        raise EnvironmentMismatchError(
            f"TensorRT's builder resource for Windows, {RESOURCE}.so.*, is not there (looked in {looked}). Not every "
            "package of TensorRT has it: NVIDIA's tar file for Linux x86-64 does. Unpack that of exactly the "
            "installed version, and put its folder lib on LD_LIBRARY_PATH before Python starts"
        )


def _folders() -> Iterator[Path]:
    """Where the loaded ``libnvinfer`` lies, and where the loader of libraries looks."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        path = line.partition("/")
        if path[1] and "libnvinfer.so" in path[2]:
            yield Path("/" + path[2]).parent
    yield from (Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder)
