"""The one door to TensorRT's Python bindings on the machine that runs an artifact; nothing here compiles."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = [
    "DISTRIBUTIONS",
    "IMPORT_FAILURES",
    "bindings",
    "import_failure",
    "installed_bindings",
    "installed_bindings_name",
    "installed_version",
    "lean_runtime",
]

DISTRIBUTIONS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}
"""Backend name, which is the name of the module too, to distribution."""

_FOR_CUDA = ("", "-cu13", "-cu12", "-cu13-bindings", "-cu12-bindings")
"""Endings of the distribution's name, of which one is installed; torch-tensorrt 2.14 brings the second only, and
bundles name the wheels of libraries and bindings, where the others are source that pip would have to build."""


IMPORT_FAILURES = (ImportError, OSError, RuntimeError)
"""What importing a package with libraries of its own raises: the first two for a missing DLL, the third for what it
checks itself."""

_DO_BY_CODE = {
    126: "a DLL is missing: install the Microsoft Visual C++ Redistributable (x64) from "
    "https://aka.ms/vs/17/release/vc_redist.x64.exe, then install the package again",
    127: "a DLL is of another version: install the newest Microsoft Visual C++ Redistributable (x64) from "
    "https://aka.ms/vs/17/release/vc_redist.x64.exe, then install the package again",
    1114: "a DLL could not start: update the Microsoft Visual C++ Redistributable (x64) and the NVIDIA driver",
    1455: "there is too little memory for its DLLs: close other programs, or enlarge the paging file of Windows",
}
"""What to do about codes of Windows."""


def import_failure(error: BaseException) -> str:
    """Why a package does not import and what to do about it, in one line."""
    code = getattr(error, "winerror", None)
    text = " ".join(str(error).split())
    # an extension module that cannot be loaded is an ImportError without the code; so is what ctypes does not find, or
    # something that it needs, as NVIDIA's packages load their libraries: a FileNotFoundError
    if code is None and ("DLL load failed" in text or "Could not find module" in text):
        code = 126
    do = _DO_BY_CODE.get(code or 0, "install it again: pip install --force-reinstall, with the same version")
    return f"{type(error).__name__}: {text}; {do}"


def bindings(backend: str) -> Any:
    """The module ``tensorrt_rtx`` or ``tensorrt``.

    Returns:
        The module, imported.

    Raises:
        EnvironmentMismatchError: The module does not import; its own reason is in the message and chained.
    """
    distribution = DISTRIBUTIONS[backend]
    try:
        return importlib.import_module(_module_of(backend))
    except IMPORT_FAILURES as error:
        name = installed_bindings_name(backend) or distribution
        version = installed_version(name)
        # libraries are no dependency of the bindings
        names = [name.removesuffix("-bindings") + "-libs", name] if name.endswith("-bindings") else [name]
        command = " ".join(f"{one}=={version}" if version else one for one in names)
        raise EnvironmentMismatchError(
            f"{distribution} does not import: {import_failure(error)}. "
            f"The command: pip install --force-reinstall {command}"
        ) from error


def _module_of(backend: str) -> str:
    """The module to import.

    ``tensorrt_rtx`` itself only imports all of ``tensorrt_rtx_bindings``. It is a distribution of its own, without
    wheels, and bundles do without it.
    """
    alone = f"{backend}_bindings"
    missing = backend not in sys.modules and importlib.util.find_spec(backend) is None
    return alone if missing and importlib.util.find_spec(alone) else backend


def installed_bindings(backend: str) -> str | None:
    """Version of the installed distribution of a backend's bindings; ``None`` where there is none."""
    name = installed_bindings_name(backend)
    return installed_version(name) if name else None


def installed_bindings_name(backend: str) -> str | None:
    """What the installed distribution of a backend's bindings is called, ``tensorrt-cu13`` for one; or ``None``."""
    if backend not in DISTRIBUTIONS:  # of a newer version of this package, or of nobody's
        return None
    return next((name for ending in _FOR_CUDA if installed_version(name := DISTRIBUTIONS[backend] + ending)), None)


def lean_runtime(version: str) -> str | None:
    """TensorRT's lean runtime of exactly ``version``, a library; ``None`` where it is not installed.

    It runs engines that were built ``version_compatible`` with that version beside a newer TensorRT. NVIDIA's wheel
    ``tensorrt-lean-cu13-libs`` brings it. Not one that has been seen: see ``docs/tensorrt.md``.
    """
    if version not in [installed_version(f"tensorrt-lean{ending}-libs") for ending in _FOR_CUDA]:
        return None
    found = importlib.util.find_spec("tensorrt_lean_libs")
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    libraries = [file for folder in folders for file in sorted(folder.glob("*nvinfer_lean*"))]
    return str(libraries[0]) if libraries else None


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution; ``None`` where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
