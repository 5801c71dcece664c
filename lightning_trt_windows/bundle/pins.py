"""Versions for the Windows machine, and which of them have wheels for it. Standard library only.

``make pins`` asks the package index again; what it prints goes into ``WHEELS``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lightning_trt_windows.errors import ConfigurationError

__all__ = ["CHECKED_ON", "PYBASE64", "PYTHONS", "SAFETENSORS", "WHEELS", "requirements"]

CHECKED_ON = "2026-11-23"
"""When the wheels below were last asked for."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""Versions of Python that all of them exist for."""
PYBASE64 = "1.5.1"
"""What makes large engines load faster."""
SAFETENSORS = "0.8.0"
"""What reads goldens (reference outputs)."""
NUMPY = "2.2.6"
"""PyTorch warns at its import where it is missing; the newest with wheels for all of these versions of Python."""

MODEL_SIGNING = ("model-signing>=1.1,<2", "pyopenssl>=24")
"""What checks signatures of OpenSSF's model signing; it imports pyOpenSSL, and its metadata does not ask for it."""

WHEELS: Mapping[str, tuple[str, ...]] = {
    "torch": ("2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1"),
    "tensorrt-rtx": ("1.4.0.76", "1.5.0.114", "1.6.1.120", "1.7.1.116"),
    "pybase64": (PYBASE64,),
    "safetensors": (SAFETENSORS,),
    "numpy": (NUMPY,),
}
"""Versions with wheels for Windows on x86-64 on PyPI. ``tensorrt-rtx`` itself has no code: what was asked for are
``tensorrt_rtx_cu13_libs`` and ``tensorrt_rtx_cu13_bindings``, which it brings. PyPI's wheels of torch for Windows are
builds for CPUs; those for CUDA are on PyTorch's own index, in the same versions."""

_CUDA = "cu130"
"""Build of torch that goes with TensorRT's CUDA 13 libraries, where the manifests name none."""
_INDEX = "https://download.pytorch.org/whl/{}"
_NVIDIA = "https://pypi.nvidia.com"
"""Has the libraries of classic TensorRT for Windows; PyPI has their bindings only."""
_RUNTIMES = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}
"""Distribution that manifests name, by backend."""
_WHEELS_OF = {"tensorrt-rtx": ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings")}
"""What is installed where the distribution itself is source that pip has to build: its two wheels do without it."""


def requirements(
    made_with: Sequence[tuple[str, Mapping[str, str]]],
    *,
    package: str,
    goldens: bool,
    signatures: bool,
    openssf: bool = False,
) -> str:
    """The text of ``requirements-windows.txt``.

    Args:
        made_with: Backend and versions of each artifact.
        package: This package, as a line of that file.
        goldens: Whether there are goldens to verify with.
        signatures: Whether there are signatures of this package to check.
        openssf: Whether there are signatures of OpenSSF's model signing to check.

    Returns:
        The text of the file.

    Raises:
        ConfigurationError: No environment can have what all of them need.
    """
    torch = _one("torch", (versions.get("torch", "") for _, versions in made_with), same=_minor)
    pins = [f"torch=={_cuda_build(torch)}"] if torch else []
    for backend in sorted({backend for backend, _ in made_with}):
        distribution = _RUNTIMES.get(backend, backend)
        versions = (versions.get(distribution, "") for name, versions in made_with if name == backend)
        if version := _one(distribution, versions, same=str):
            pins += [f"{name}=={version}" for name in _WHEELS_OF.get(distribution, (distribution,))]
    pins += [package, f"pybase64=={PYBASE64}", f"numpy=={NUMPY}"]
    pins += [f"safetensors=={SAFETENSORS}"] * goldens + ["cryptography>=43"] * signatures
    pins += [*MODEL_SIGNING] * openssf
    build = _cuda_build(torch).partition("+")[2]
    python = _one("Python", (_minor(versions.get("python", "")) for _, versions in made_with), same=lambda _: "")
    lines = [
        "# What the artifacts of this bundle run with on Windows, in the versions they were made with:",
        f"#   py -{python or PYTHONS[1]} -m venv .venv",
        r"#   .venv\Scripts\python -m pip install -r requirements-windows.txt",
        f"# Any Python from {PYTHONS[0]} to {PYTHONS[-1]} is supported.",
        *_remarks(pins, "./" in package),
        f"--extra-index-url {_INDEX.format(build)}",
        *[f"--extra-index-url {_NVIDIA}"] * any(pin.startswith("tensorrt==") for pin in pins),
        *pins,
    ]
    return "\n".join(lines) + "\n"


def _one(name: str, versions: Iterable[str], *, same: object) -> str:
    """The newest of ``versions``, which must be the same in what ``same`` gives."""
    found = sorted({version for version in versions if version}, key=_sortable)
    if len({same(version) for version in found}) > 1:  # type: ignore[operator]
        raise ConfigurationError(
            f"the artifacts need {name} {' and '.join(found)}, and one environment has one of them only. Collect them "
            "into bundles of their own, from directories of their own, or export the older ones again"
        )
    return found[-1] if found else ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _sortable(version: str) -> tuple[tuple[int, ...], str]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])), version


def _cuda_build(torch: str) -> str:
    """The version of a build for CUDA; the artifact may have been made with one for CPUs."""
    version, _, build = torch.partition("+")
    return f"{version}+{build if build.startswith('cu') else _CUDA}"


def _remarks(pins: Sequence[str], is_in_bundle: bool) -> Iterator[str]:
    known: list[str] = []
    unknown: list[str] = []
    asked_as = {wheel: name for name, wheels in _WHEELS_OF.items() for wheel in wheels}
    for pin in pins:
        name, _, version = pin.partition("==")
        distribution = asked_as.get(name, name)
        if distribution in _RUNTIMES.values() or distribution in WHEELS:
            listed = version.partition("+")[0] in WHEELS.get(distribution, ())
            (known if listed else unknown).append(f"{distribution} {version.partition('+')[0]}")
    known, unknown = list(dict.fromkeys(known)), list(dict.fromkeys(unknown))
    if known:
        yield f"# Wheels for Windows were found on PyPI on {CHECKED_ON}: {', '.join(known)}."
    if any(pin.startswith("torch==") for pin in pins):
        yield "# PyPI's torch for Windows has no CUDA; the build that is pinned here comes from PyTorch's own index."
    if any(pin.startswith("tensorrt==") for pin in pins):
        yield "# PyPI has tensorrt's bindings for Windows and not its libraries, which are on NVIDIA's own index."
    if is_in_bundle:
        yield "# No index has lightning-trt-windows; its wheel is in this folder, where pip must be started."
    if unknown:
        yield f"# Nobody looked whether there are wheels for Windows: {', '.join(unknown)}."
