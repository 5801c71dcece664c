"""Whether a machine can run artifacts, a sentence for each thing that has to be right; imports PyTorch if it is there.

``doctor FILE`` shows it anywhere, and ``doctor`` without a file on Windows, where nothing is exported.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_trt_windows._compat.bindings import DISTRIBUTIONS, installed_bindings_name, installed_version
from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.inspection import inspect
from lightning_trt_windows.artifact.onnx_files import onnx_issues
from lightning_trt_windows.errors import EnvironmentMismatchError, LightningTrtError
from lightning_trt_windows.runtime.environment import Machine, mismatches, newest_cuda_of_driver

__all__ = ["LITTLE_SPACE", "Finding", "directory_finding", "examine_pc", "finding"]

LITTLE_SPACE = 2_000_000_000
"""Bytes below which a directory is worth a word."""
_PYTHONS = ((3, 10), (3, 13))
_RUNTIME_DLLS = ("vcruntime140.dll", "vcruntime140_1.dll", "msvcp140.dll")
"""Libraries of the Microsoft Visual C++ Redistributable; those of PyTorch and TensorRT link to them."""
_REDISTRIBUTABLE = "https://aka.ms/vs/17/release/vc_redist.x64.exe"
_GENERATIONS = {
    7: "Volta or Turing (RTX 20)", 8: "Ampere (RTX 30) or Ada (RTX 40)", 9: "Hopper", 10: "Blackwell",
    11: "Blackwell", 12: "Blackwell (RTX 50)",
}  # fmt: skip
_OLDEST = (8, 0)
"""Compute capability of Ampere: what TensorRT-RTX's engines are built for unless another one was asked for."""


@dataclass(frozen=True)
class Finding:
    """What was found about one thing."""

    name: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name:12}  {self.text}"


def finding(name: str, look: Callable[[], str]) -> Finding:
    """What ``look`` returns, or why it failed."""
    try:
        return Finding(name, True, look())
    except LightningTrtError as error:
        return Finding(name, False, str(error))
    # a broken installation raises anything, and that is what is looked for
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}")


def directory_finding(place: Path) -> str:
    """Say that ``place`` can be written to, and how much space is free.

    Returns:
        The sentence.

    Raises:
        EnvironmentMismatchError: There is no such directory, or little free space.
        OSError: ``place`` cannot be written to.
    """
    if not place.is_dir():
        raise EnvironmentMismatchError(f"there is no directory {place}; make it, or name another one with --directory")
    with tempfile.TemporaryFile(dir=place):
        pass
    free = shutil.disk_usage(place).free
    if free < LITTLE_SPACE:
        raise EnvironmentMismatchError(f"{place} has only {readable_size(free)} of free space")
    return f"{place} can be written to and has {readable_size(free)} of free space"


def examine_pc(
    file: str | os.PathLike[str] | None = None, directory: str | os.PathLike[str] = ".", device: str = "cuda:0"
) -> list[Finding]:
    """Look at everything that running an artifact needs; nothing is loaded onto the GPU.

    Args:
        file: The artifact that is to run here; without one, what any artifact of TensorRT-RTX needs.
        directory: Where files will be written, such as runtime caches.
        device: The GPU.

    Returns:
        Findings, in the order of the layers that need each other.

    Raises:
        ArtifactError: ``file`` has no manifest that can be read.
        ConfigurationError: ``file`` does not name an artifact.
    """
    artifact = None if file is None else read_artifact(file)
    backend = artifact.manifest.backend.name if artifact else "tensorrt_rtx"
    machine = Machine.this(backend, device)
    found = [finding("system", _system)]
    if sys.platform == "win32":
        found.append(finding("c++ runtime", _redistributable))
    found += [
        finding("pytorch", lambda: _pytorch(machine)),
        finding("driver", lambda: _driver(machine)),
        finding("gpu", lambda: _gpu(machine)),
        finding("tensorrt", lambda: _tensorrt(machine, backend)),
    ]
    if artifact:
        found += _against(artifact, machine)
    found.append(finding("directory", lambda: directory_finding(Path(directory))))
    if sys.platform != "linux":
        found.append(Finding("export", True, "not here: exports are made on Linux x86-64"))
    return found


def _system() -> str:
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1] or sys.maxsize < 2**32:
        raise EnvironmentMismatchError(
            f"wanted Python 3.{_PYTHONS[0][1]} to 3.{_PYTHONS[1][1]} for 64 bits, found {platform.python_version()} "
            f"({platform.architecture()[0]}): install another one from python.org"
        )
    return f"{platform.system()} {platform.release()}, Python {platform.python_version()}"


def _redistributable() -> str:
    missing = []
    for name in _RUNTIME_DLLS:
        try:
            ctypes.WinDLL(name)  # type: ignore[attr-defined]  # Windows has it
        except OSError:
            missing.append(name)
    if missing:
        raise EnvironmentMismatchError(
            f"{', '.join(missing)} cannot be loaded: install the Microsoft Visual C++ Redistributable (x64) from "
            f"{_REDISTRIBUTABLE}"
        )
    return "the Microsoft Visual C++ Redistributable is installed"


def _pytorch(machine: Machine) -> str:
    if machine.torch is None:
        raise EnvironmentMismatchError("PyTorch is not installed: install a build for CUDA, as pytorch.org says")
    if machine.torch_failure:
        raise EnvironmentMismatchError(f"PyTorch {machine.torch} does not import: {machine.torch_failure}")
    if machine.cuda_build is None:
        raise EnvironmentMismatchError(
            f"PyTorch {machine.torch} is a build for CPUs only: install one with the index for CUDA of pytorch.org"
        )
    return f"PyTorch {machine.torch}, built for CUDA {machine.cuda_build}"


def _driver(machine: Machine) -> str:
    known = machine.driver_cuda or newest_cuda_of_driver()  # a build of PyTorch for CPUs is not asked
    if known is None:
        raise EnvironmentMismatchError("there is no NVIDIA driver: install it from nvidia.com/drivers, then restart")
    newest = f"{known // 1000}.{known % 1000 // 10}"
    built = (machine.cuda_build or "0").partition(".")[0]
    if known // 1000 < int(built):
        raise EnvironmentMismatchError(
            f"the NVIDIA driver knows CUDA {newest}, PyTorch was built for {machine.cuda_build}: update the driver"
        )
    return f"the NVIDIA driver knows CUDA up to {newest}"


def _gpu(machine: Machine) -> str:
    if machine.capability is None:
        why = "" if machine.cuda_build else ", which is looked for with a build of PyTorch for CUDA"
        raise EnvironmentMismatchError(f"there is no NVIDIA GPU at {machine.device} that PyTorch can use{why}")
    number = f"{machine.capability[0]}.{machine.capability[1]}"
    generation = _GENERATIONS.get(machine.capability[0], "newer than Blackwell")
    if machine.capability < _OLDEST:
        raise EnvironmentMismatchError(
            f"{machine.gpu} has compute capability {number} ({generation}); engines are for Ampere and newer unless "
            f"they were exported for it: compute_capabilities=('{number}',)"
        )
    return f"{machine.gpu}, compute capability {number} ({generation})"


def _tensorrt(machine: Machine, backend: str) -> str:
    distribution = DISTRIBUTIONS.get(backend, backend)
    if machine.bindings is None:
        raise EnvironmentMismatchError(f"{distribution} is not installed: pip install {distribution}")
    name = installed_bindings_name(backend) or distribution
    if machine.bindings_failure:
        raise EnvironmentMismatchError(f"{name} {machine.bindings} does not import: {machine.bindings_failure}")
    fast = installed_version("pybase64")
    return f"{name} {machine.bindings}" + ("" if fast else "; without pybase64, which loads large engines faster")


def _against(artifact: Artifact, machine: Machine) -> Iterator[Finding]:
    """Whether the artifact is whole, and how this machine differs from what it needs."""
    inspection = inspect(artifact.path, check=True)
    # a model for ONNX Runtime that was left behind is nothing that loading the artifact needs
    left_behind = set(onnx_issues(artifact, content=False))
    if issues := [issue for issue in inspection.issues if issue not in left_behind]:
        yield from (Finding("artifact", False, issue) for issue in issues)
        return
    found = list(mismatches(artifact, machine, inspection.headers))
    yield from (Finding("artifact", not mismatch.fatal, str(mismatch)) for mismatch in found)
    if not found:
        yield Finding("artifact", True, f"{artifact.path.name} is whole, and this machine is what it needs")
