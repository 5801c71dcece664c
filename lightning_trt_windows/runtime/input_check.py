"""Tensors that a call was given against the ranges in the manifest, before TensorRT sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lightning_trt_windows.artifact.manifest import InputRecord
from lightning_trt_windows.artifact.shapes import range_text, shape_text
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["InputCheck"]


@dataclass(frozen=True)
class _Wanted:
    record: InputRecord
    dtype: torch.dtype
    dynamic: tuple[tuple[int, str], ...]
    """Axis and symbol of each dynamic axis."""


class InputCheck:
    """Checks the tensors of a call; made once, run often."""

    def __init__(self, records: Sequence[InputRecord], device: torch.device) -> None:
        self._device = device
        self._wanted = tuple(
            _Wanted(
                record,
                getattr(torch, record.dtype),
                tuple((axis, symbol) for axis, symbol in enumerate(record.symbols) if symbol is not None),
            )
            for record in records
        )
        self._passed: list[torch.Size] | None = None
        """Shapes of the last call that was right: as a rule the next call has them too."""

    def __call__(self, tensors: Sequence[Any]) -> None:
        """Refuse what the engines were not built for.

        Raises:
            ConfigurationError: Names the input, the dimension, its range and what was given.
        """
        shapes = []
        for wanted, tensor in zip(self._wanted, tensors, strict=True):
            if not isinstance(tensor, torch.Tensor):
                raise ConfigurationError(f"{wanted.record.name} must be a torch.Tensor, got {type(tensor).__name__}")
            if tensor.dtype is not wanted.dtype or tensor.device != self._device:
                raise ConfigurationError(self._kind_message(wanted, tensor))
            shapes.append(tensor.shape)
        if shapes != self._passed:
            self._check_shapes(shapes)
            self._passed = shapes

    def _check_shapes(self, shapes: Sequence[tuple[int, ...]]) -> None:
        sizes: dict[str, tuple[int, str, int]] = {}
        for wanted, shape in zip(self._wanted, shapes):
            record = wanted.record
            if len(shape) != len(record.min):
                ranges = shape_text(map(range_text, record.min, record.max))
                raise ConfigurationError(
                    f"{record.name} must have {len(record.min)} dimensions {ranges}, got {list(shape)}"
                )
            for axis, size in enumerate(shape):
                if not record.min[axis] <= size <= record.max[axis]:
                    raise ConfigurationError(_range_message(record, axis, shape))
            for axis, symbol in wanted.dynamic:
                size = shape[axis]
                if record.multiple_of and size % record.multiple_of[axis]:
                    raise ConfigurationError(_step_message(record, axis, shape))
                other = sizes.setdefault(symbol, (size, record.name, axis))
                if other[0] != size:
                    raise ConfigurationError(
                        f"dimension {axis} of {record.name} is {size}, and dimension {other[2]} of {other[1]} is "
                        f"{other[0]}; both are {symbol!r}, so they must be equal"
                    )

    def _kind_message(self, wanted: _Wanted, tensor: torch.Tensor) -> str:
        name = wanted.record.name
        if tensor.dtype is not wanted.dtype:
            found = str(tensor.dtype).removeprefix("torch.")
            return (
                f"{name} must be {wanted.record.dtype}, got {found}; convert it with .to(torch.{wanted.record.dtype})"
            )
        return f"{name} is on {tensor.device}, the module on {self._device}; move it with .to({str(self._device)!r})"


def _range_message(record: InputRecord, axis: int, shape: tuple[int, ...]) -> str:
    low, high = record.min[axis], record.max[axis]
    symbol = f" ({record.symbols[axis]})" if record.symbols[axis] else ""
    wanted = str(low) if low == high else f"{low} to {high}"
    return (
        f"dimension {axis}{symbol} of {record.name} must be {wanted}, got {shape[axis]} in {list(shape)}. The engines "
        "were built for this range; export the checkpoint with a wider one to go beyond it"
    )


def _step_message(record: InputRecord, axis: int, shape: tuple[int, ...]) -> str:
    step = record.multiple_of[axis]
    below = shape[axis] // step * step
    near = " or ".join(str(size) for size in (below, below + step) if record.min[axis] <= size <= record.max[axis])
    return (
        f"dimension {axis} ({record.symbols[axis]}) of {record.name} must be a multiple of {step}, got {shape[axis]} "
        f"in {list(shape)}; pad or resize it to {near}"
    )
