"""Shapes as values: what every other module passes around. Standard library only.

Legend: a *range* is inclusive, ``min <= opt <= max``; ``opt`` is the size TensorRT tunes its kernels for. Sizes count
elements along one axis. An input's shape lists one entry per axis, batch axis first where there is one: an ``int``
for a static axis, a ``DimRange`` for a dynamic one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from lightning_trt_windows.errors import ConfigurationError

__all__ = ["DTYPES", "DimRange", "InputSpec", "InputTree", "parse_input_spec", "range_text", "shape_text"]

DTYPES = frozenset(
    {
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
    }
)
"""Names of the dtypes that ``InputSpec`` accepts, as torch spells them."""


@dataclass(frozen=True)
class DimRange:
    """Inclusive range of one dynamic dimension.

    Raises:
        ConfigurationError: The sizes are not whole numbers, not in the order ``1 <= min <= opt <= max``, or not
            multiples of ``multiple_of``.
    """

    min: int
    """Smallest size the engine accepts, at least 1."""
    opt: int
    """Size the engine is tuned for."""
    max: int
    """Largest size the engine accepts; memory is planned for it."""
    name: str | None = None
    """Dimensions of the same name always have the same size (batch across inputs, length of ids and mask)."""
    multiple_of: int = 1
    """Every size is a multiple of this (an image height of 32, 64, 96, ...)."""

    def __post_init__(self) -> None:
        for field in ("min", "opt", "max", "multiple_of"):
            value = getattr(self, field)
            # bool is an int to Python, never a size to us
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigurationError(f"DimRange.{field} must be a whole number, got {value!r}")
        if not 1 <= self.min <= self.opt <= self.max:
            raise ConfigurationError(
                f"DimRange: expected 1 <= min <= opt <= max, got min={self.min}, opt={self.opt}, max={self.max}"
            )
        if self.multiple_of < 1:
            raise ConfigurationError(f"DimRange.multiple_of must be at least 1, got {self.multiple_of}")
        ragged = [f"{n}={v}" for n, v in zip(("min", "opt", "max"), self.bounds) if v % self.multiple_of]
        if ragged:
            raise ConfigurationError(f"DimRange: {', '.join(ragged)} is not a multiple of {self.multiple_of}")

    @property
    def bounds(self) -> tuple[int, int, int]:
        """``(min, opt, max)``."""
        return self.min, self.opt, self.max

    @property
    def is_static(self) -> bool:
        """Whether only one size is possible."""
        return self.min == self.max

    def __str__(self) -> str:
        return range_text(*self.bounds)


@dataclass(frozen=True)
class InputSpec:
    """Shape and dtype of one tensor that ``forward`` takes.

    Example:
        ``InputSpec(shape=(DimRange(1, 8, 32), 3, 224, 224), dtype="float32")``

    Raises:
        ConfigurationError: An axis is neither a size nor a ``DimRange``, or the dtype is unknown.
    """

    shape: tuple[DimRange | int, ...]
    """One entry per axis; an empty tuple is a scalar tensor."""
    dtype: str = "float32"
    """One of ``DTYPES``."""
    values: tuple[float, float] | None = None
    """Inclusive (lowest, highest) value to trace and compare with; ``None`` for the dtype's natural small values.

    Needed where values are indices: token ids must stay inside the vocabulary."""

    def __post_init__(self) -> None:
        if isinstance(self.shape, (str, bytes)) or not isinstance(self.shape, (tuple, list)):
            raise ConfigurationError(f"InputSpec.shape must be a sequence of sizes, got {self.shape!r}")
        # lists come from YAML and from users; one type inside
        object.__setattr__(self, "shape", tuple(self.shape))
        for axis, size in enumerate(self.shape):
            if isinstance(size, DimRange):
                continue
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise ConfigurationError(
                    f"InputSpec.shape[{axis}] must be a size or a DimRange(min, opt, max), got {size!r}"
                )
        if self.dtype not in DTYPES:
            raise ConfigurationError(f"InputSpec.dtype must be one of {', '.join(sorted(DTYPES))}, got {self.dtype!r}")
        if self.values is not None:
            low, high = self.values
            if low > high:
                raise ConfigurationError(f"InputSpec.values: expected (lowest, highest), got {self.values!r}")
            object.__setattr__(self, "values", (low, high))

    def at(self, bound: str) -> tuple[int, ...]:
        """Give the shape at one end of its ranges, or at the usual size.

        Args:
            bound: ``"min"``, ``"opt"`` or ``"max"``.

        Returns:
            One size per axis.
        """
        return tuple(getattr(d, bound) if isinstance(d, DimRange) else d for d in self.shape)

    def __str__(self) -> str:
        return self.dtype + shape_text(self.shape)


def range_text(*bounds: int) -> str:
    """Write a range for people, ``1..64`` or ``1..8..64``; ``3`` where its ends are equal."""
    return str(bounds[0]) if bounds[0] == bounds[-1] else "..".join(map(str, bounds))


def shape_text(sizes: Iterable[object]) -> str:
    """Write a shape for people: ``[1..64, 3, 224]``."""
    return f"[{', '.join(map(str, sizes))}]"


InputTree: TypeAlias = Any
"""An ``InputSpec``, a constant (``None``, flag, number, string), or a dict, list or tuple of these."""


def parse_input_spec(value: object, where: str) -> InputSpec:
    """Make an ``InputSpec`` of what YAML or JSON gives: ``{"shape": [[1, 8, 32], 3], "dtype": "float32"}``.

    Args:
        value: A mapping, or an ``InputSpec``.
        where: What gave it; leads the message of an error.

    Returns:
        The value as an ``InputSpec``.

    Raises:
        ConfigurationError: ``value`` is not such a mapping.
    """
    if isinstance(value, InputSpec):
        return value
    if not isinstance(value, Mapping) or "shape" not in value:
        raise ConfigurationError(f"{where}: expected an InputSpec or a mapping with a shape, got {value!r}")
    unknown = set(value) - {"shape", "dtype", "values"}
    if unknown:
        raise ConfigurationError(f"{where}: unknown keys {sorted(unknown)}; known are shape, dtype, values")
    shape: list[DimRange | int] = []
    for axis, size in enumerate(value["shape"]):
        if isinstance(size, Mapping):
            shape.append(DimRange(**size))
        elif isinstance(size, (list, tuple)):
            if len(size) != 3:
                raise ConfigurationError(f"{where}: shape[{axis}] must be [min, opt, max], got {size!r}")
            shape.append(DimRange(*size))
        else:
            shape.append(size)
    values = value.get("values")
    return InputSpec(tuple(shape), value.get("dtype", "float32"), None if values is None else tuple(values))
