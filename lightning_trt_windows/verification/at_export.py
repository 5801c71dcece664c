"""Verify an artifact right after it has been written, where that was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.errors import VerificationError
from lightning_trt_windows.verification.verify import record_verification, verify

__all__ = ["failure_of", "raise_if_failed", "verified"]


def verified(artifact: Artifact, wanted: bool | Literal["auto"], *, twin: Artifact | None = None) -> Artifact:
    """Verify and write the verdict into the manifest. The artifact stays whatever it is; see ``failure_of``.

    Args:
        artifact: Just written, with goldens.
        wanted: ``True`` makes numbers that cannot be checked a failure, ``"auto"`` does not.
        twin: Compiled from the same program with the same settings for this machine, where the artifact itself cannot
            run here: its numbers are checked, and the manifest says that they are the twin's.

    Returns:
        The artifact with the verdict in its manifest.
    """
    if twin is not None:
        # the numbers are the twin's, the files are the artifact's own
        own, numbers = verify(artifact.path, numbers=False), verify(twin.path)
        found = replace(
            numbers,
            artifact=artifact,
            integrity=(*own.integrity, *numbers.integrity),
            structure=(*(own.structure or ()), *(numbers.structure or ())),
        )
        return record_verification(found, required=wanted is True, kind="twin")
    return record_verification(verify(artifact.path), required=wanted is True)


def failure_of(artifact: Artifact) -> VerificationError | None:
    """What its manifest says is wrong with an artifact that was verified; ``None`` where nothing is."""
    found = artifact.manifest.verification or {}
    if found.get("verdict") == "failed":
        wrong = [line for call in found.get("calls", ()) for line in _wrong(call)] or list(found.get("issues", ()))
        listed = "\n  - ".join(wrong)
        return VerificationError(
            f"{artifact.path.name} was built and does not compute what the module does; it stays where it is, and its "
            f"manifest says so:\n  - {listed}"
        )
    if found.get("required") and not found.get("calls"):
        return VerificationError(
            f"{artifact.path.name} was built, and its numbers were not checked: {found.get('not_checked')}. "
            "verify='auto' (--verify auto) checks them only where that can be done"
        )
    return None


def raise_if_failed(artifact: Artifact) -> Artifact:
    """``artifact``, unless it was verified and is wrong.

    Returns:
        The artifact.

    Raises:
        VerificationError: The artifact does not compute what the module does, or its numbers had to be checked and were
            not.
    """
    if error := failure_of(artifact):
        raise error
    return artifact


def _wrong(call: dict[str, object]) -> list[str]:
    outputs = call.get("outputs")
    lines = [f"at the sizes {call.get('name')}: {call['error']}"] if call.get("error") else []
    for output in outputs if isinstance(outputs, list) else ():
        if not output.get("passed"):
            lines.append(f"at the sizes {call.get('name')}: {output.get('name')} {output.get('reason')}")
    return lines
