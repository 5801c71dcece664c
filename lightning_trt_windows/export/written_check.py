"""Whether a program that was just written loads, and gives what the module gives where its engines do.

The engines were compared with the module before they were built. What stands around them is looked at here, in the file
itself: order and nesting of outputs, arguments, the fallback operators, and their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.manifest import EngineRecord
from lightning_trt_windows.backends import CompiledProgram
from lightning_trt_windows.errors import ArtifactError, CompileError
from lightning_trt_windows.export.replay import failing_operator
from lightning_trt_windows.modules.numbers import compare
from lightning_trt_windows.runtime.loading import load_program
from lightning_trt_windows.verification.structure import structure_issues

__all__ = ["check_written"]

_UNKNOWN = (
    "No operator of the program shows it, so that it is a fault of lightning-trt-windows: please report the model. "
    "check=False exports it all the same, and nothing vouches for it"
)
_ALLOWED = 1e-2
"""Relative norm: what PyTorch computes between engines may be rounded in another way here."""
_LOWERED = 2.0
"""Times what 16 bits were seen to round: engines give what the lowered graph gives, which was compared before."""


def check_written(artifact: Artifact, compiled: CompiledProgram) -> None:
    """Look at the ``.ep`` of ``artifact``, whose manifest need not be written yet.

    Raises:
        CompileError: The written program would not load, or would not give what the module gives.
    """
    if issues := list(structure_issues(artifact)):
        raise CompileError(
            f"the program that was written to {artifact.path.name} does not fit together: {'; '.join(issues)}. "
            f"{_UNKNOWN}"
        )
    samples = [{boundary.sample.name for boundary in boundaries} for boundaries in compiled.replay.values()]
    common = set.intersection(*samples) if samples else set()
    first = next((b.sample for bs in compiled.replay.values() for b in bs if b.sample.name in common), None)
    if first is None:
        return
    try:
        opener = _repeating(compiled, first.name)
        loaded = load_program(artifact, torch.device("cpu"), opener, keeps_engines=False)
        found = loaded.call_flat(first.inputs)
    except (ArtifactError, RuntimeError, ValueError, TypeError, IndexError) as error:
        culprit = failing_operator(compiled.program, first.inputs, _given(compiled, first.name), compiled.lines)
        what = f"{culprit} fails on the CPU, where programs are tried" if culprit else _UNKNOWN
        raise CompileError(
            f"the program that was written to {artifact.path.name} does not run: {type(error).__name__}: {error}. "
            f"{what}"
        ) from error
    compared = () if compiled.check is None else compiled.check.compared
    allowed = max([_ALLOWED, *(_LOWERED * sizes.lowered for sizes in compared if sizes.name == first.name)])
    for record, ours, theirs in zip(artifact.manifest.outputs, found, first.wanted, strict=True):
        if not isinstance(theirs, Tensor):
            continue
        wanted = theirs.to(getattr(torch, record.dtype))
        outcome = compare(record.name, ours, wanted, allowed)
        if not outcome.passed and bool(wanted.isfinite().all()):
            raise CompileError(
                f"{artifact.path.name} would not give what the module gives: {record.name} {outcome.reason}, although "
                f"its engines do. {_UNKNOWN}"
            )


def _given(compiled: CompiledProgram, sample: str) -> dict[str, list[Any]]:
    """What each engine gave at ``sample``."""
    boundaries = ((name, b) for name, bs in compiled.replay.items() for b in bs if b.sample.name == sample)
    return {name: list(boundary.outputs) for name, boundary in boundaries}


def _repeating(compiled: CompiledProgram, sample: str) -> Callable[[EngineRecord, memoryview], Any]:
    """What opens engines that give what was seen at ``sample``."""

    def open_engine(record: EngineRecord, plan: memoryview) -> Callable[[Sequence[Tensor]], list[Any]]:
        boundary = next(b for b in compiled.replay[record.name] if b.sample.name == sample)

        def run(inputs: Sequence[Tensor]) -> list[Any]:
            for given, seen in zip(inputs, boundary.inputs, strict=True):
                if given.shape != seen.shape or not torch.equal(given.isfinite(), seen.cpu().isfinite()):
                    raise ValueError(f"the engine {record.name} is given something else than it was compared with")
            return list(boundary.outputs)

        return run

    return open_engine
