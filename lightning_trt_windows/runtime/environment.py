"""Whether an artifact can run here: what it needs, what is here, what to do. All mismatches at once.

TensorRT-RTX engines are portable across operating systems, so none is refused for them: running an artifact on Linux is
the rehearsal of running it on Windows.
"""

from __future__ import annotations

import ctypes
import platform
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_trt_windows._compat.bindings import DISTRIBUTIONS, bindings, installed_version
from lightning_trt_windows.artifact import Artifact
from lightning_trt_windows.engine_header import EngineHeader
from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = ["Machine", "Mismatch", "check_environment", "mismatches"]


@dataclass(frozen=True)
class Mismatch:
    """One thing that is not as the artifact needs it."""

    wanted: str
    found: str
    do: str
    """What to do about it."""
    fatal: bool = True
    """Whether it is known not to work, rather than not known to work."""

    def __str__(self) -> str:
        return f"wanted {self.wanted}, found {self.found}: {self.do}"


@dataclass(frozen=True)
class Machine:
    """What is here."""

    system: str
    """As ``platform.system()`` names it."""
    torch: str | None
    """Version of PyTorch; ``None`` where it is not installed."""
    cuda_build: str | None
    """CUDA version that PyTorch was built for; ``None`` for a CPU-only build."""
    driver_cuda: int | None
    """Newest CUDA that the driver supports, as 13020 for 13.2; ``None`` without a driver."""
    device: str
    """The device asked for."""
    gpu: str | None
    """Name of that GPU; ``None`` where there is none."""
    capability: tuple[int, int] | None
    bindings: str | None
    """Version of TensorRT's bindings; ``None`` where they are not installed."""

    @classmethod
    def this(cls, backend: str, device: str) -> Machine:
        """This machine, as far as ``backend`` and ``device`` go."""
        found: dict[str, Any] = {"torch": installed_version("torch")}
        if found["torch"]:
            found = _seen_by_torch(device)
        distribution = DISTRIBUTIONS.get(backend, backend)
        version = installed_version(distribution) and str(bindings(backend).__version__)
        return cls(
            system=platform.system(),
            torch=found["torch"],
            cuda_build=found.get("cuda_build"),
            driver_cuda=found.get("driver_cuda"),
            device=device,
            gpu=found.get("gpu"),
            capability=found.get("capability"),
            bindings=version,
        )


def _seen_by_torch(device: str) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "cuda_build": torch.version.cuda}
    if torch.version.cuda is None:
        return found
    found["driver_cuda"] = _newest_cuda_of_driver()
    wanted = torch.device(device)
    index = wanted.index or 0
    if wanted.type == "cuda" and torch.cuda.is_available() and index < torch.cuda.device_count():
        found["gpu"] = torch.cuda.get_device_name(index)
        found["capability"] = torch.cuda.get_device_capability(index)
    return found


def _newest_cuda_of_driver() -> int | None:
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
        failed = driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else version.value or None


def check_environment(artifact: Artifact, device: str, headers: Mapping[str, EngineHeader]) -> None:
    """Refuse a machine on which ``artifact`` cannot run; warn where it may not.

    Args:
        artifact: What is to run.
        device: Where, as ``"cuda:0"``.
        headers: What the engines say about themselves, by name, as far as they say it.

    Raises:
        EnvironmentMismatchError: Everything that is not as it must be.
    """
    machine = Machine.this(artifact.manifest.backend.name, device)
    found = list(mismatches(artifact, machine, headers))
    if any(mismatch.fatal for mismatch in found):
        lines = "".join(f"\n  - {mismatch}" for mismatch in found)
        raise EnvironmentMismatchError(f"{artifact.path.name} cannot run here:{lines}")
    for mismatch in found:
        warnings.warn(f"{artifact.path.name}: {mismatch}", stacklevel=4)


def mismatches(artifact: Artifact, machine: Machine, headers: Mapping[str, EngineHeader]) -> Iterator[Mismatch]:
    """How ``machine`` differs from what ``artifact`` needs."""
    backend = artifact.manifest.backend.name
    if backend == "tensorrt" and machine.system != "Windows":
        yield Mismatch(
            "Windows, for which these TensorRT engines were built",
            machine.system,
            "load it on a Windows PC; only artifacts of the backend tensorrt_rtx also run on Linux",
        )
    yield from _torch_mismatches(artifact, machine)
    yield from _bindings_mismatches(artifact, machine, headers)
    if machine.torch:
        yield from _gpu_mismatches(artifact, machine, headers)


def _torch_mismatches(artifact: Artifact, machine: Machine) -> Iterator[Mismatch]:
    wanted = artifact.manifest.versions.get("torch", "")
    minor = ".".join(wanted.split("+")[0].split(".")[:2])
    if machine.torch is None:
        install = f"pip install torch=={minor}.* with the index for CUDA that pytorch.org names for Windows"
        yield Mismatch(f"PyTorch {minor}.*", "none", install)
    elif ".".join(machine.torch.split("+")[0].split(".")[:2]) != minor:
        yield Mismatch(
            f"PyTorch {minor}.*, because torch.export files load only with the minor version that wrote them",
            machine.torch,
            f"pip install torch=={minor}.*, or export the checkpoint again with PyTorch {machine.torch.split('+')[0]}",
        )


def _bindings_mismatches(
    artifact: Artifact, machine: Machine, headers: Mapping[str, EngineHeader]
) -> Iterator[Mismatch]:
    backend = artifact.manifest.backend.name
    if backend not in DISTRIBUTIONS:
        known = " or ".join(DISTRIBUTIONS)
        yield Mismatch(f"the backend {known}", backend, "upgrade lightning-trt-windows")
        return
    distribution = DISTRIBUTIONS[backend]
    versions = {".".join(map(str, header.version)) for header in headers.values()}
    if backend == "tensorrt_rtx" and distribution in artifact.manifest.versions:
        versions.add(artifact.manifest.versions[distribution])
    elif distribution in artifact.manifest.versions:
        versions = {artifact.manifest.versions[distribution]}
    for version in sorted(versions - {machine.bindings}):
        yield Mismatch(
            f"{distribution} {version}, the version that built the engines",
            machine.bindings or "none",
            f"pip install {distribution}=={version}",
        )


def _gpu_mismatches(artifact: Artifact, machine: Machine, headers: Mapping[str, EngineHeader]) -> Iterator[Mismatch]:
    if machine.cuda_build is None:
        yield Mismatch(
            "a CUDA build of PyTorch",
            f"PyTorch {machine.torch} for CPUs only",
            "install PyTorch with the index for CUDA that pytorch.org names (on Windows, pip's default is CPU only)",
        )
        return
    if machine.driver_cuda is None:
        yield Mismatch("an NVIDIA driver", "none", "install the driver from nvidia.com/drivers, then restart")
        return
    built = max((header.cuda for header in headers.values()), default=0)
    if machine.driver_cuda // 1000 < built // 1000:
        yield Mismatch(
            f"a driver for CUDA {built // 1000}",
            f"one for CUDA {machine.driver_cuda // 1000}.{machine.driver_cuda % 1000 // 10}",
            "update the NVIDIA driver",
        )
    if machine.capability is None:
        yield Mismatch(
            f"an NVIDIA GPU at {machine.device}",
            "none",
            "choose another device, or see with nvidia-smi whether the driver sees the GPU",
        )
        return
    yield from _capability_mismatches(artifact, machine)


def _capability_mismatches(artifact: Artifact, machine: Machine) -> Iterator[Mismatch]:
    assert machine.capability is not None
    listed = artifact.manifest.backend.compute_capabilities
    exact = sorted(tuple(map(int, name.split("."))) for name in listed if name != "newer")
    if not exact or machine.capability in exact or ("newer" in listed and machine.capability > exact[-1]):
        return
    found = f"{machine.gpu} with {machine.capability[0]}.{machine.capability[1]}"
    wanted = f"a GPU of compute capability {', '.join(listed)}"
    if "newer" in listed and machine.capability > exact[0]:
        # datacenter GPUs are not on TensorRT-RTX's list; engines were seen running on 9.0 nevertheless
        yield Mismatch(
            wanted, found, "it may run and serves for a rehearsal, but NVIDIA does not support it", fatal=False
        )
        return
    number = f"{machine.capability[0]}.{machine.capability[1]}"
    yield Mismatch(
        wanted, found, f"use another GPU, or export the checkpoint for it: compute_capabilities=('{number}',)"
    )
