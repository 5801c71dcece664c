"""Example tensors for a trace, and one ``torch.export.Dim`` for each name among their dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.export import Dim

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.backends.two_sizes import ROOM, needs_room
from lightning_trt_windows.capture.constraint_fixes import Suggestion
from lightning_trt_windows.discovery.axes import symbol_of
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["Dimensions", "trace_size"]


class Dimensions:
    """Makes the examples of one trace.

    Args:
        device: Where they are.
        sizes: Size to trace at, by symbol, where it is not the usual one.
        lows: Smallest size that torch.export is told of, by symbol, where it is not the smallest one.
        room: Tell torch.export of a third size where there are two, 1 and 2: ``with_room`` names these.
    """

    def __init__(
        self,
        device: torch.device,
        sizes: Mapping[str, int] | None = None,
        lows: Mapping[str, int] | None = None,
        *,
        room: bool = True,
    ) -> None:
        self._device = device
        self._room = room
        self.with_room: set[str] = set()
        """Symbols of which torch.export was told a larger size than there is."""
        self._lows = dict(lows or {})
        self._sizes = dict(sizes or {})
        self.shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]  # torch's
        """What torch.export wants to know about the examples."""
        self._dims: dict[str, Any] = {}
        self.ranges: dict[str, DimRange] = {}
        """Range of each symbol."""

    def example(self, name: str, leaf: Any) -> Any:
        """A tensor for an ``InputSpec``, with its dynamic dimensions; constants are their own example."""
        if not isinstance(leaf, InputSpec):
            return leaf
        tensor = self.tensor(name, leaf, self._sizes)
        self.shapes[tensor] = {
            axis: self._dim(name, axis, d)
            for axis, d in enumerate(leaf.shape)
            if isinstance(d, DimRange) and not d.is_static
        }
        return tensor

    def tensor(self, name: str, spec: InputSpec, sizes: Mapping[str, int]) -> torch.Tensor:
        """Random values of the sizes that ``sizes`` says by symbol, or else of those that one traces at."""
        shape = tuple(
            d if isinstance(d, int) else sizes.get(symbol_of(name, axis, d), trace_size(d))
            for axis, d in enumerate(spec.shape)
        )
        return _random(spec, shape).to(self._device)

    def _dim(self, leaf: str, axis: int, dim: DimRange) -> Any:
        name = symbol_of(leaf, axis, dim)
        known = self.ranges.setdefault(name, dim)
        if known.bounds != dim.bounds or known.multiple_of != dim.multiple_of:
            raise ConfigurationError(
                f"the dimension {name!r} is {known} in one input and {dim} in {leaf}[{axis}]; dimensions of one name "
                "have one range. Give them different names, or the same range"
            )
        if name not in self._dims:
            step = dim.multiple_of
            low = self._lows.get(name, dim.min)
            high = dim.max // step
            if self._room and needs_room(low // step, high):
                high = ROOM
                self.with_room.add(name)
            base = Dim(name if step == 1 else f"_{name}", min=low // step, max=high)
            self._dims[name] = base if step == 1 else step * base
        return self._dims[name]

    def translated(self, suggestion: Suggestion) -> Suggestion:
        """``suggestion`` in sizes: of a dimension in steps, torch.export only knows the number of steps."""
        dim = self.ranges.get(suggestion.symbol.removeprefix("_"))
        if dim is None or suggestion.symbol in self.ranges:
            return suggestion
        return suggestion.scaled(dim.multiple_of, suggestion.symbol.removeprefix("_"))

    def traced_at(self, symbol: str) -> int | None:
        """The size that the examples have there."""
        dim = self.ranges.get(symbol)
        return None if dim is None else self._sizes.get(symbol, trace_size(dim))

    @staticmethod
    def symbols(leaf: str, spec: InputSpec) -> tuple[str | None, ...]:
        """The names of the axes of ``spec``."""
        return tuple(
            symbol_of(leaf, axis, d) if isinstance(d, DimRange) and not d.is_static else None
            for axis, d in enumerate(spec.shape)
        )


def trace_size(dim: DimRange) -> int:
    """The size to trace at: ``opt``, which TensorRT tunes for, but never 1, which torch.export takes for a constant."""
    if dim.is_static:
        return dim.opt
    return max(dim.opt, 2 * dim.multiple_of)


def _random(spec: InputSpec, shape: tuple[int, ...]) -> torch.Tensor:
    dtype = getattr(torch, spec.dtype)
    low, high = spec.values if spec.values is not None else (0, 1)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.rand(shape, dtype=dtype) * (high - low) + low
    if dtype is torch.bool:
        return torch.ones(shape, dtype=dtype)
    return torch.randint(int(low), int(high) + 1, shape, dtype=dtype)
