"""What the user may say about how ranges are derived from what was seen. Standard library only; YAML can write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_trt_windows.artifact.shapes import DimRange
from lightning_trt_windows.errors import ConfigurationError, did_you_mean

__all__ = ["RangeOptions"]


@dataclass(frozen=True, kw_only=True)
class RangeOptions:
    """How ranges are derived from what was seen. Explicit inputs are not touched by any of it.

    A dimension is called by its axis, ``"x.2"``, or by its symbol, ``"batch"`` or ``"dim1"``; the manifest shows both.

    Raises:
        ConfigurationError: An option has a value outside its range, or of another type.

    Example:
        >>> RangeOptions(margin=0.25, round_to=8, caps={"batch": 64}, static=("x.1",))
    """

    margin: float = 0.0
    """Fraction by which ranges other than the batch's are widened on both sides: 0.25 makes 100..200 75..250."""
    round_to: int = 1
    """Bounds of ranges other than the batch's are rounded outwards to a multiple of this."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """Largest size by dimension, whatever was seen."""
    static: tuple[str, ...] = ()
    """Dimensions to fix at their typical size."""
    dynamic: Mapping[str, Any] = field(default_factory=dict)
    """Range by dimension, a ``DimRange`` or ``[min, opt, max]``, whatever was seen."""
    same: tuple[tuple[str, ...], ...] = ()
    """Axes of equal size where the calls do not show it: ``[["x.2", "x.3"]]`` for square images."""
    keep: tuple[str, ...] = ()
    """Optional arguments for a loss (``"labels"``) that are inputs of the artifact all the same."""
    max_batches: int = 16
    """Batches drawn from each loader that is asked, where no training has shown any."""

    def __post_init__(self) -> None:
        if isinstance(self.margin, bool) or not isinstance(self.margin, (int, float)) or not 0 <= self.margin < 1:
            raise ConfigurationError(f"RangeOptions.margin is a fraction from 0 to below 1, got {self.margin!r}")
        _check_size("round_to", self.round_to)
        _check_size("max_batches", self.max_batches)
        for name in ("caps", "dynamic"):
            if not isinstance(getattr(self, name) or {}, Mapping):
                raise ConfigurationError(f"RangeOptions.{name} is a mapping by dimension, got {getattr(self, name)!r}")
        for name, cap in (self.caps or {}).items():
            _check_size(f"caps[{name!r}]", cap)
        for name in ("static", "same", "keep"):
            if isinstance(getattr(self, name), str):
                raise ConfigurationError(f"RangeOptions.{name} is a list, got {getattr(self, name)!r}")
        if any(isinstance(axes, str) for axes in self.same or ()):
            raise ConfigurationError(f"RangeOptions.same is a list of lists of axes, got {self.same!r}")
        # one type inside, whatever YAML gave
        object.__setattr__(self, "caps", dict(self.caps or {}))
        object.__setattr__(self, "static", tuple(self.static or ()))
        object.__setattr__(self, "keep", tuple(self.keep or ()))
        object.__setattr__(self, "same", tuple(tuple(axes) for axes in self.same or ()))
        object.__setattr__(self, "dynamic", {name: _as_range(name, r) for name, r in (self.dynamic or {}).items()})

    @classmethod
    def of(cls, value: RangeOptions | Mapping[str, Any] | None) -> RangeOptions:
        """Make options of what was given.

        Args:
            value: Options, a mapping of them as a file gives it, or ``None`` for the defaults.

        Returns:
            The options as an object.

        Raises:
            ConfigurationError: ``value`` is none of these, or has an option that does not exist.
        """
        if isinstance(value, cls):
            return value
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"ranges: expected RangeOptions(...), got {value!r}")
        known = [f.name for f in fields(cls)]
        if unknown := [str(name) for name in value if name not in known]:
            hint = did_you_mean(unknown[0], known, f"known are {', '.join(known)}")
            raise ConfigurationError(f"RangeOptions has no option {unknown[0]!r}{hint}")
        return cls(**value)


def _check_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"RangeOptions.{name} is a whole number from 1, got {value!r}")


def _as_range(name: str, value: Any) -> DimRange:
    if isinstance(value, DimRange):
        return value
    try:
        if isinstance(value, Mapping):
            return DimRange(**value)
        if isinstance(value, (list, tuple)) and len(value) == 3:
            return DimRange(*value)
    except (TypeError, ConfigurationError) as error:
        raise ConfigurationError(f"RangeOptions.dynamic[{name!r}]: {error}") from error
    raise ConfigurationError(f"RangeOptions.dynamic[{name!r}] is a DimRange or [min, opt, max], got {value!r}")
