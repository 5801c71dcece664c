"""Whether an artifact can run here: what it needs, what is here, what to do. All mismatches at once.

TensorRT-RTX engines are portable across operating systems, so none is refused for them: running an artifact on Linux is
a dry run, or rehearsal, of running it on Windows.
"""

from __future__ import annotations

import ctypes
import platform
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_trt_windows._compat.bindings import (
    DISTRIBUTIONS,
    IMPORT_FAILURES,
    bindings,
    import_failure,
    installed_bindings,
    installed_version,
    lean_runtime,
)
from lightning_trt_windows._compat.versions import minor
from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.engine_header import EngineHeader
from lightning_trt_windows.artifact.manifest import TWIN
from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = ["Machine", "Mismatch", "check_environment", "lean_runtime_for", "mismatches", "newest_cuda_of_driver"]


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
    """Name of the operating system, as ``platform.system()`` gives it."""
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
    torch_failure: str = ""
    """Why PyTorch, which is installed, does not import; empty where it does."""
    bindings_failure: str = ""
    """Why TensorRT's bindings, which are installed, do not import; empty where they do."""

    @classmethod
    def this(cls, backend: str, device: str) -> Machine:
        """This machine, as far as ``backend`` and ``device`` go. What does not import is noted, with its reason."""
        found: dict[str, Any] = {"torch": installed_version("torch")}
        if found["torch"]:
            try:
                found = _seen_by_torch(device)
            except IMPORT_FAILURES as error:
                found["torch_failure"] = import_failure(error)
        version, failure = installed_bindings(backend), ""
        if version:
            try:
                version = str(bindings(backend).__version__)
            except EnvironmentMismatchError as error:
                failure = import_failure(error.__cause__ or error)
        return cls(
            system=platform.system(),
            torch=found["torch"],
            cuda_build=found.get("cuda_build"),
            driver_cuda=found.get("driver_cuda"),
            device=device,
            gpu=found.get("gpu"),
            capability=found.get("capability"),
            bindings=version,
            torch_failure=found.get("torch_failure", ""),
            bindings_failure=failure,
        )


def _seen_by_torch(device: str) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "cuda_build": torch.version.cuda}
    if torch.version.cuda is None:
        return found
    found["driver_cuda"] = newest_cuda_of_driver()
    wanted = torch.device(device)
    index = wanted.index or 0
    if wanted.type == "cuda" and torch.cuda.is_available() and index < torch.cuda.device_count():
        found["gpu"] = torch.cuda.get_device_name(index)
        found["capability"] = torch.cuda.get_device_capability(index)
    return found


def newest_cuda_of_driver() -> int | None:
    """Newest CUDA that the NVIDIA driver supports, as 13020 for 13.2; ``None`` without a driver."""
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
        failed = driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else version.value or None


def check_environment(artifact: Artifact, device: str, headers: Mapping[str, EngineHeader]) -> tuple[Mismatch, ...]:
    """Refuse a machine on which ``artifact`` cannot run; warn where it may not, and give these doubts back.

    Args:
        artifact: What is to run.
        device: Where, as ``"cuda:0"``.
        headers: What the engines say about themselves, by name, as far as they say it.

    Returns:
        Mismatches that leave doubts, each of which was told as a warning.

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
    return tuple(found)


def mismatches(artifact: Artifact, machine: Machine, headers: Mapping[str, EngineHeader]) -> Iterator[Mismatch]:
    """How ``machine`` differs from what ``artifact`` needs."""
    if artifact.manifest.backend.name == "tensorrt":
        yield from _system_mismatches(artifact, machine)
    yield from _torch_mismatches(artifact, machine)
    yield from _bindings_mismatches(artifact, machine, headers)
    if machine.torch and not machine.torch_failure:
        yield from _gpu_mismatches(artifact, machine, headers)


def _system_mismatches(artifact: Artifact, machine: Machine) -> Iterator[Mismatch]:
    """TensorRT's engines run on the system that they were built for, and on no other."""
    if artifact.manifest.backend.options.get(TWIN) is True:
        if machine.system != "Linux":
            yield Mismatch(
                "Linux: this is the twin (host build) of an artifact, made to be compared where it was built",
                machine.system,
                "load the artifact itself",
            )
    elif machine.system != "Windows":
        yield Mismatch(
            "Windows, for which these TensorRT engines were built",
            machine.system,
            "load it on a Windows PC; only artifacts of the backend tensorrt_rtx also run on Linux",
        )


def _torch_mismatches(artifact: Artifact, machine: Machine) -> Iterator[Mismatch]:
    wanted = minor(artifact.manifest.versions.get("torch"))
    name = f"{wanted[0]}.{wanted[1]}.*"
    if machine.torch is None:
        install = f"pip install torch=={name} with the index for CUDA that pytorch.org names for Windows"
        yield Mismatch(f"PyTorch {name}", "none", install)
    elif machine.torch_failure:
        yield Mismatch(f"PyTorch {name}", f"PyTorch {machine.torch}, which does not import", machine.torch_failure)
    if machine.torch is not None and minor(machine.torch) != wanted:
        yield Mismatch(
            f"PyTorch {name}, because torch.export files load only with the minor version that wrote them",
            machine.torch,
            f"pip install torch=={name}, or export the checkpoint again with PyTorch {machine.torch.split('+')[0]}",
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
    if machine.bindings_failure:
        found = f"{distribution} {machine.bindings}, which does not import"
        yield Mismatch(f"TensorRT's bindings, {distribution}", found, machine.bindings_failure)
    if backend == "tensorrt":
        yield from _tensorrt_mismatches(artifact, machine)
        return
    versions = {".".join(map(str, header.version)) for header in headers.values()}
    if distribution in artifact.manifest.versions:
        versions.add(artifact.manifest.versions[distribution])
    for version in sorted(versions - {machine.bindings}):
        yield Mismatch(
            f"{distribution} {version}, the version that built the engines",
            machine.bindings or "none",
            f"pip install {distribution}=={version}",
        )


def _tensorrt_mismatches(artifact: Artifact, machine: Machine) -> Iterator[Mismatch]:
    """TensorRT takes engines of its own version only, and those built ``version_compatible`` of an older minor one."""
    built, found = artifact.manifest.versions.get("tensorrt"), machine.bindings
    if built is None or found == built:
        return
    install = f"pip install tensorrt=={built}"
    if artifact.manifest.backend.options.get("version_compatible") is not True:
        newer = "; to run on newer ones of the same major, export with compile_options={'version_compatible': True}"
        wanted = f"tensorrt {built}, the version that built the engines"
        yield Mismatch(wanted, found or "none", install + (newer if found else ""))
    elif found is None or _numbers(found)[0] != _numbers(built)[0] or _numbers(found) < _numbers(built):
        wanted = f"tensorrt {built} or newer, below {_numbers(built)[0] + 1}, for version-compatible engines"
        yield Mismatch(wanted, found or "none", install)
    elif lean_runtime(built) is None:
        yield Mismatch(
            f"TensorRT's lean runtime {built} beside the newer TensorRT, for version-compatible engines",
            f"tensorrt {found} without it",
            f"pip install tensorrt-lean-cu13-libs=={built}, or {install}",
            fatal=False,
        )


def lean_runtime_for(artifact: Artifact) -> str | None:
    """The library that runs the engines of ``artifact`` beside a newer TensorRT; ``None`` where none is needed."""
    built = artifact.manifest.versions.get("tensorrt")
    options = artifact.manifest.backend.options
    if artifact.manifest.backend.name != "tensorrt" or built is None or options.get("version_compatible") is not True:
        return None
    return None if installed_bindings("tensorrt") == built else lean_runtime(built)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


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
            wanted,
            found,
            "it may run, which suffices for a rehearsal (a dry run), but NVIDIA does not support it (kernels are not "
            "specialized there for shapes: that gave wrong numbers)",
            fatal=False,
        )
        return
    yield Mismatch(wanted, found, _other_gpu(artifact, f"{machine.capability[0]}.{machine.capability[1]}"))


def _other_gpu(artifact: Artifact, number: str) -> str:
    """What to do about a GPU of compute capability ``number``, for which the engines are not."""
    backend = artifact.manifest.backend
    if backend.target == "ampere_and_newer":
        return "use a GPU of the Ampere generation or newer"
    if backend.target == "same_capability":
        return (
            f"TensorRT built for the GPU of its own machine: export on one with {number}, or for Ampere and newer with "
            "compile_options={'hardware_compatible': True}, or with backend='tensorrt_rtx'"
        )
    return f"use another GPU, or export the checkpoint for it: compute_capabilities=('{number}',)"
