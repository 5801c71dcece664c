"""What a verification found, as text and as JSON. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.description import printable
from lightning_trt_windows.errors import (
    ArtifactError,
    EnvironmentMismatchError,
    LightningTrtError,
    VerificationError,
)
from lightning_trt_windows.runtime.environment import Mismatch

if TYPE_CHECKING:
    from lightning_trt_windows.modules.numbers import Compared

__all__ = ["Call", "Verdict", "Verification"]

Verdict = Literal["passed", "failed", "numbers not checked"]


@dataclass(frozen=True)
class Call:
    """One call of the artifact, compared."""

    name: str
    """Name of the sizes: ``min``, ``opt``, ``max``, ``between``; or of a call of the user's."""
    sizes: Mapping[str, int]
    """Size of each named dimension."""
    outputs: tuple[Compared, ...]
    error: str = ""
    """What the call raised, where it did."""

    @property
    def passed(self) -> bool:
        """Whether every output is as near as it must be."""
        return not self.error and all(output.passed for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "sizes": dict(self.sizes),
            "passed": self.passed,
            **({"error": self.error} if self.error else {}),
            "outputs": [output.to_dict() for output in self.outputs],
        }


@dataclass(frozen=True)
class Verification:
    """What was checked of an artifact, and what came of it. ``str()`` is the report."""

    artifact: Artifact
    integrity: tuple[str, ...]
    """What differs between manifest and files, in either direction; also a signature that is not as it must be."""
    structure: tuple[str, ...] | None
    """What in the program does not fit the manifest; ``None`` where it was not looked at: the files are not those of
    the export, or there is no PyTorch here."""
    environment: tuple[Mismatch, ...] | None
    """What of this machine is not as the artifact needs it; ``None`` where the files are not those of the export."""
    calls: tuple[Call, ...] = ()
    """The numbers; empty where they were not checked."""
    not_checked: str = ""
    """Why the numbers were not checked."""
    computed_by: str = ""
    """What the wanted outputs are from."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """What the numbers were computed with: GPU, driver, versions."""
    signed_by: str | None = None
    """Fingerprint of the key that signed the manifest; ``None`` where no signature was asked for."""

    @property
    def issues(self) -> tuple[str, ...]:
        """What is wrong with the files."""
        return (*self.integrity, *(self.structure or ()))

    @property
    def verdict(self) -> Verdict:
        """``passed`` needs numbers; ``failed`` is any issue or number that is wrong."""
        if self.issues or not all(call.passed for call in self.calls):
            return "failed"
        return "passed" if self.calls else "numbers not checked"

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong and the numbers were right."""
        return self.verdict == "passed"

    def error(self, *, require_numbers: bool = False) -> LightningTrtError | None:
        """The failure as an exception, with the exit code of its kind; ``None`` where there is none.

        Numbers that were not checked are a failure only where they are required.
        """
        name = self.artifact.path.name
        if issues := self.issues:
            return ArtifactError(self.artifact.path, issues)
        if self.verdict == "failed":
            wrong = [line for call in self.calls if not call.passed for line in _wrong(call)]
            return VerificationError(f"{name} does not compute what the module does:\n  - " + "\n  - ".join(wrong))
        if require_numbers and not self.calls:
            return EnvironmentMismatchError(f"{name}: the numbers were not checked: {self.not_checked}")
        return None

    def summary(self) -> dict[str, Any]:
        """What the manifest keeps, as ``docs/format.md`` says."""
        found: dict[str, Any] = {"verdict": self.verdict, **self.machine}
        if self.computed_by:
            found["computed_by"] = self.computed_by
        if self.not_checked:
            found["not_checked"] = self.not_checked
        if self.issues:
            found["issues"] = list(self.issues)
        found["calls"] = [call.to_dict() for call in self.calls]
        return found

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "file": self.artifact.path.name,
            "verdict": self.verdict,
            "integrity": list(self.integrity),
            "structure": None if self.structure is None else list(self.structure),
            "environment": None
            if self.environment is None
            else [{"text": str(m), "fatal": m.fatal} for m in self.environment],
            "signed_by": self.signed_by,
            "numbers": {
                "checked": bool(self.calls),
                "not_checked": self.not_checked,
                "computed_by": self.computed_by,
                **self.machine,
                "calls": [call.to_dict() for call in self.calls],
            },
        }

    def __str__(self) -> str:
        # texts in a manifest come from elsewhere: none of them may move the cursor of a terminal
        return "\n".join(printable(line) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.artifact.path.name}: {self.verdict}"
        yield from _section("integrity", self.integrity, "manifest and files agree, byte for byte")
        if self.signed_by:
            yield f"  signature    by {self.signed_by}"
        yield from _section("structure", self.structure, "program, engines and manifest fit together")
        here = None if self.environment is None else tuple(map(str, self.environment))
        yield from _section("environment", here, "as the artifact needs it")
        if not self.calls:
            check = self.artifact.manifest.check
            if check is not None and check.compared:
                yield f"  numbers      {check}, before the engines were built; not checked here: {self.not_checked}"
            else:
                yield f"  numbers      NOT CHECKED: {self.not_checked}"
            return
        yield f"  numbers      against {self.computed_by}"
        for call in self.calls:
            sizes = ", ".join(f"{name}={size}" for name, size in call.sizes.items())
            yield f"    {call.name}{f' ({sizes})' if sizes else ''}{f': {call.error}' if call.error else ''}"
            for output in call.outputs:
                yield f"      {'ok    ' if output.passed else 'WRONG '} {output.name}: {_figures(output)}"


def _section(title: str, issues: tuple[str, ...] | None, good: str) -> Iterator[str]:
    if issues is None:
        yield f"  {title:<12} not checked"
        return
    if not issues:
        yield f"  {title:<12} {good}"
        return
    yield f"  {title:<12} {len(issues)} problem{'' if len(issues) == 1 else 's'}"
    yield from (f"    - {issue}" for issue in issues)


def _figures(output: Compared) -> str:
    parts = [output.reason] if output.reason else []
    if output.relative_norm is not None and output.cosine is not None:
        parts.append(f"relative {output.relative_norm:.1e} of {output.allowed:.1e} allowed")
        parts.append(f"largest difference {output.max_abs or 0.0:.1e}, cosine {output.cosine:.6f}")
    elif output.differing is not None:
        parts.append(f"{output.differing:.1%} of the values differ")
    return ", ".join(parts)


def _wrong(call: Call) -> Iterator[str]:
    if call.error:
        yield f"at the sizes {call.name}: {call.error}"
    for output in call.outputs:
        if not output.passed:
            yield f"at the sizes {call.name}: {output.name} {output.reason}"
