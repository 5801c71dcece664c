"""How far what engines compute is from what the module computes, and how far it may be."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

__all__ = ["TOLERANCES", "Compared", "compare", "relative_norm", "tolerance_of"]

TOLERANCES = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 3e-2}
"""Relative norm of the difference that is allowed, by what engines compute in; they compute float32 with TF32."""
_MARGIN = 6
"""Allowed is at least this many times the rounding that the model showed when it was recorded: additions in another
order and other operators come on top of that of matrix products."""
_MOST = {"float32": 0.1, "float16": 0.1, "bfloat16": 0.3}
"""Allowed at most, however much the model amplifies."""
_NOTHING = 1e-6
"""Root mean square below which an output is nothing: what is left of it is rounding."""


@dataclass(frozen=True)
class Compared:
    """One output of one call: what the engines gave beside what was wanted."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    allowed: float
    """Relative norm of the difference, or for whole numbers and flags the share of values that differ."""
    passed: bool
    reason: str = ""
    """Why not, or what was not compared, in one sentence."""
    relative_norm: float | None = None
    """Norm of the difference over the norm of what was wanted; ``None`` for whole numbers and flags."""
    max_abs: float | None = None
    """Largest difference of one value."""
    cosine: float | None = None
    """Cosine of the angle between the two; 1 is the same direction."""
    differing: float | None = None
    """Share of values that are not equal; whole numbers and flags only."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what is not finite is ``None``."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in {**asdict(self), "shape": list(self.shape)}.items()
        }


def tolerance_of(computed_in: str, rounding: float | None) -> float:
    """The relative norm that is allowed.

    Args:
        computed_in: What the engines compute in: ``float32``, ``float16`` or ``bfloat16``.
        rounding: By how much this output of this model moves when matrix products read their arguments as coarsely as
            the engines do; ``None`` where it is not known.

    Returns:
        The tolerance.
    """
    base = TOLERANCES[computed_in]
    return max(base, min(_MARGIN * (rounding or 0.0), _MOST[computed_in]))


def relative_norm(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of ``wanted``; infinite where shapes, or what is not finite, differ."""
    if found.shape != wanted.shape:
        return math.inf
    ours, theirs = _wide(found), _wide(wanted)
    usable = theirs.isfinite()
    if not _same_where_not_finite(ours, theirs):
        return math.inf
    return _relative(ours[usable], theirs[usable])


def compare(name: str, found: Any, wanted: torch.Tensor, allowed: float) -> Compared:
    """Hold ``found`` against ``wanted``: dtype, shape, what is not finite, then the values.

    NaN and infinities must stand where they stand; they are not compared, and the reason of a comparison that passed
    says how many there are.
    """
    kind = str(wanted.dtype).removeprefix("torch.")

    def verdict(passed: bool, reason: str = "", **values: float) -> Compared:
        return Compared(name, kind, tuple(wanted.shape), allowed, passed, reason, **values)

    if isinstance(found, (bool, int, float)):
        found = torch.tensor(found, dtype=wanted.dtype)
    if not isinstance(found, torch.Tensor):
        return verdict(False, f"is a {type(found).__name__}, wanted was a tensor")
    found, wanted = found.detach().cpu(), wanted.detach().cpu()
    if found.dtype is not wanted.dtype:
        return verdict(False, f"is {str(found.dtype).removeprefix('torch.')}, wanted was {kind}")
    if found.shape != wanted.shape:
        return verdict(False, f"has the shape {list(found.shape)}, wanted was {list(wanted.shape)}")
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return _compare_exactly(verdict, found, wanted, allowed)
    ours, theirs = _wide(found), _wide(wanted)
    if not _same_where_not_finite(ours, theirs):
        counts = f"{int((~ours.isfinite()).sum())} of {ours.numel()} values are not finite"
        return verdict(False, f"{counts}, in what was wanted {int((~theirs.isfinite()).sum())}, not all the same")
    usable = theirs.isfinite()
    ours, theirs = ours[usable], theirs[usable]
    relative = _relative(ours, theirs)
    passed = relative <= allowed
    odd = usable.numel() - int(usable.sum())
    left_out = (
        f"{odd} of {usable.numel()} values are NaN or infinite in the module as well, and not compared" if odd else ""
    )
    return verdict(
        passed,
        left_out if passed else f"differs by {relative:.1e} of its norm, {allowed:.1e} is allowed",
        relative_norm=relative,
        max_abs=float((ours - theirs).abs().max()) if ours.numel() else 0.0,
        cosine=_cosine(ours, theirs),
    )


def _compare_exactly(verdict: Any, found: torch.Tensor, wanted: torch.Tensor, allowed: float) -> Compared:
    """Whole numbers and flags: a choice between values that are nearly equal may fall the other way."""
    share = float((found != wanted).double().mean()) if wanted.numel() else 0.0
    largest = float((found.double() - wanted.double()).abs().max()) if wanted.numel() else 0.0
    reason = "" if share <= allowed else f"{share:.1%} of the values differ, {allowed:.1%} may"
    compared: Compared = verdict(share <= allowed, reason, max_abs=largest, differing=share)
    return compared


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return torch.view_as_real(tensor.to(torch.complex128)) if tensor.is_complex() else tensor.double()


def _same_where_not_finite(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    odd = ~(ours.isfinite() & theirs.isfinite())
    return torch.equal(ours[odd].nan_to_num(0.0, 1.0, -1.0), theirs[odd].nan_to_num(0.0, 1.0, -1.0)) and torch.equal(
        ours[odd].isnan(), theirs[odd].isnan()
    )


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    if not theirs.numel():
        return 0.0
    return float((ours - theirs).norm() / max(float(theirs.norm()), _NOTHING * math.sqrt(theirs.numel())))


def _cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    product = float(ours.norm() * theirs.norm())
    if not product:
        return 1.0 if torch.equal(ours, theirs) else 0.0
    return min(1.0, max(-1.0, float((ours * theirs).sum()) / product))
