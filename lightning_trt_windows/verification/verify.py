"""``verify``: integrity, structure, environment, and with a GPU the numbers. All that is wrong, not the first of it."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact, write_manifest
from lightning_trt_windows.artifact.golden_files import golden_issues
from lightning_trt_windows.artifact.inspection import inspect
from lightning_trt_windows.artifact.signing import PublicKeyLike, check_signature
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, LightningTrtError
from lightning_trt_windows.runtime.environment import Machine, Mismatch, mismatches
from lightning_trt_windows.verification.result import Call, Verification

if TYPE_CHECKING:
    import torch

    from lightning_trt_windows.runtime.loaded import LoadedModule
    from lightning_trt_windows.verification.golden_file import Goldens

__all__ = ["record_verification", "verify"]


def verify(
    path: str | os.PathLike[str],
    *,
    golden: str | os.PathLike[str] | None = None,
    inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    tolerance: float | None = None,
    device: str | torch.device = "cuda:0",
    numbers: bool = True,
    trusted_keys: Sequence[PublicKeyLike] | None = None,
    loaded: LoadedModule | None = None,
) -> Verification:
    """Check that an artifact, named by its ``.ep`` or its ``.json``, is whole and computes what it should.

    The numbers need a GPU, and something to compare with: goldens recorded at the export, or ``reference``. Where they
    cannot be checked, ``Verification.not_checked`` says why, which is not a failure.

    Args:
        path: Either of the two files.
        golden: Goldens elsewhere than beside the artifact; not compared with a hash.
        inputs: Arguments of one call, a sequence by position or a mapping by name, to compare ``reference`` at.
        reference: The module, or anything else that is called like ``forward``: what it returns is wanted. Without
            ``inputs`` it is called at the inputs of the goldens, or at synthetic ones within the ranges.
        tolerance: Relative norm of a difference that is allowed, for every output. By default 1e-3 where engines
            compute float32 (they do so with TF32), 1e-2 for float16 and 3e-2 for bfloat16; more where the module was
            seen to amplify rounding when the goldens were recorded.
        device: The GPU.
        numbers: Whether to check the numbers where that can be done.
        trusted_keys: Public keys, or files with them: Ed25519 for the signature of the manifest, one of NIST's curves
            for that of OpenSSF's model signing. One of them must have signed. ``None`` asks for no signature, an empty
            list is an error.
        loaded: The artifact, loaded already: compares numbers without loading it again, on its device.

    Returns:
        What was checked, with every fault that was found.

    Raises:
        ArtifactError: The manifest is missing or damaged. Every other fault is in the result.
        ConfigurationError: ``inputs`` are given without ``reference``, ``golden`` is not a file, or a key cannot be
            read.
    """
    if inputs is not None and reference is None:
        raise ConfigurationError(
            "inputs are compared with what a reference gives for them: verify(..., reference=module)"
        )
    if golden is not None and not Path(golden).is_file():  # also where nothing will be compared with them
        raise ConfigurationError(f"there are no goldens at {golden}: name a file that an export with golden=True wrote")
    artifact = read_artifact(path)
    integrity, signed_by = _signature(artifact, trusted_keys)
    integrity += _integrity(artifact)
    structure: tuple[str, ...] | None = None
    environment: tuple[Mismatch, ...] | None = None
    machine = Machine.this(artifact.manifest.backend.name, str(device))
    if not integrity:
        structure = _structure(artifact, machine)
        headers = inspect(artifact.path).headers
        environment = tuple(mismatches(artifact, machine, headers))
    found = Verification(artifact, tuple(integrity), structure, environment, signed_by=signed_by)
    why_not = _why_not(found, machine, numbers=numbers, loaded=loaded is not None)
    if why_not:
        return dataclasses.replace(found, not_checked=why_not)
    return _with_numbers(found, machine, golden, inputs, reference, tolerance, device, loaded)


def record_verification(
    verification: Verification, *, required: bool = False, kind: Literal["itself", "twin"] = "itself"
) -> Artifact:
    """Write what was found into the artifact's manifest, under ``verification``. A signature has to be made anew.

    Args:
        verification: What was found.
        required: Note that the export was not to do without numbers.
        kind: Whether the numbers are the artifact's own (``"itself"``) or those of its twin: the same program, compiled
            for the machine that builds.

    Returns:
        The artifact with its new manifest.

    Raises:
        OutputError: The manifest cannot be written.
    """
    artifact = verification.artifact
    before = artifact.manifest.verification or {}
    kept = {"metric": before["metric"]} if "metric" in before else {}
    summary = {"kind": kind, **verification.summary(), **kept, **({"required": True} if required else {})}
    manifest = dataclasses.replace(artifact.manifest, verification=summary)
    write_manifest(artifact.manifest_path, manifest)
    return dataclasses.replace(artifact, manifest=manifest)


def _signature(artifact: Artifact, trusted_keys: Sequence[PublicKeyLike] | None) -> tuple[list[str], str | None]:
    if trusted_keys is None:
        return [], None
    try:
        return [], check_signature(artifact, trusted_keys)
    except ArtifactError as error:
        return list(error.issues), None


def _integrity(artifact: Artifact) -> list[str]:
    """The manifest against the files, and the files against the manifest."""
    issues = list(inspect(artifact.path, check=True).issues)
    if artifact.manifest.golden is not None:
        issues += golden_issues(artifact)
    return issues


def _structure(artifact: Artifact, machine: Machine) -> tuple[str, ...] | None:
    if machine.torch is None or machine.torch_failure:
        return None  # the environment says that PyTorch is missing
    from lightning_trt_windows.verification.structure import structure_issues

    return tuple(structure_issues(artifact))


def _why_not(found: Verification, machine: Machine, *, numbers: bool, loaded: bool) -> str:
    """Why numbers cannot be checked; empty where they can."""
    if not numbers:
        return "they were not asked for"
    if found.issues:
        return "nothing of a damaged artifact is run"
    if loaded:
        return ""
    if machine.capability is None:
        return _why_no_gpu(machine)
    if fatal := [str(mismatch) for mismatch in found.environment or () if mismatch.fatal]:
        return f"the artifact cannot run here: {'; '.join(fatal)}"
    return ""


def _why_no_gpu(machine: Machine) -> str:
    if machine.torch is None:
        return "PyTorch is not installed here"
    if machine.torch_failure:
        return f"PyTorch {machine.torch} does not import here: {machine.torch_failure}"
    without = "there is no NVIDIA GPU here that PyTorch can use"
    if machine.cuda_build is None:
        return f"{without}: PyTorch {machine.torch} is a build for CPUs only"
    return f"{without}: there is no NVIDIA driver" if machine.driver_cuda is None else without


def _with_numbers(
    found: Verification,
    machine: Machine,
    golden: str | os.PathLike[str] | None,
    inputs: Sequence[Any] | Mapping[str, Any] | None,
    reference: Callable[..., Any] | None,
    tolerance: float | None,
    device: str | torch.device,
    loaded: LoadedModule | None,
) -> Verification:
    from lightning_trt_windows.verification import comparing
    from lightning_trt_windows.verification.golden_file import read_goldens

    artifact = found.artifact
    goldens: Goldens | None = None
    try:
        if inputs is None:
            goldens = read_goldens(artifact, None if golden is None else Path(golden))
    except ArtifactError as error:
        return dataclasses.replace(found, integrity=tuple(error.issues), not_checked="the goldens are damaged")
    if goldens is None and reference is None:
        why = "the artifact has no goldens; export with golden=True, or give the module as reference"
        return dataclasses.replace(found, not_checked=why)
    try:
        if loaded is None:
            from lightning_trt_windows.runtime.loading import load

            with warnings.catch_warnings():  # what it would say stands in the environment
                warnings.simplefilter("ignore")
                loaded = load(artifact.path, device)
    except LightningTrtError as error:
        failure = Call("load", {}, (), f"{type(error).__name__}: {error}")
        return dataclasses.replace(found, calls=(failure,), computed_by="nothing", machine=_described(machine))
    if reference is not None:
        given = comparing.given_inputs(loaded, inputs, goldens)
        calls: Iterator[Call] = comparing.against_reference(loaded, reference, given, tolerance)
        computed_by = "the module that was given, where it is"
    else:
        assert goldens is not None
        calls = comparing.against_goldens(loaded, goldens, tolerance)
        computed_by = goldens.computed_by
    return dataclasses.replace(found, calls=tuple(calls), computed_by=computed_by, machine=_described(machine))


def _described(machine: Machine) -> dict[str, Any]:
    """What the numbers depend on."""
    capability = machine.capability and f"{machine.capability[0]}.{machine.capability[1]}"
    return {
        "gpu": machine.gpu,
        "compute_capability": capability,
        "driver_cuda": machine.driver_cuda,
        "tensorrt": machine.bindings,
        "torch": machine.torch,
        "system": machine.system,
    }
