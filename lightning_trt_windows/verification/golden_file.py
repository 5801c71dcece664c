"""Goldens: inputs and reference outputs, recorded at the export in a ``.safetensors`` beside the artifact.

``docs/format.md`` is the specification of the file. Needs PyTorch and safetensors; nothing is unpickled, and nothing is
parsed before the hash in the manifest has been compared.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.golden_files import golden_issues
from lightning_trt_windows.artifact.manifest import FileRecord, InputRecord
from lightning_trt_windows.errors import ArtifactError, EnvironmentMismatchError

__all__ = [
    "Golden",
    "Goldens",
    "call_sizes",
    "filled",
    "golden_shapes",
    "read_goldens",
    "ways_to_fill",
    "write_goldens",
]

_KEY = "lightning_trt_windows"
"""The one key of the file's metadata: with several, safetensors writes them in any order."""
_VERSION = 1
SETS = ("opt", "min", "between", "max")
"""Names of the sets of sizes, in the order in which they are recorded."""


@dataclass(frozen=True)
class Golden:
    """One recorded call."""

    name: str
    """``min``, ``opt``, ``max``, ``between``, or a name of the user's."""
    inputs: tuple[torch.Tensor, ...]
    """Inputs in the order of the manifest, on the CPU."""
    outputs: Mapping[str, torch.Tensor]
    """Outputs by their names in the manifest. Numbers are tensors without dimensions; anything else is left out."""
    rounding: Mapping[str, float] = field(default_factory=dict)
    """For each output the relative norm by which it changes when matrix products and convolutions read their arguments
    as coarsely as the engines do: what is to be expected of an engine that is right. Empty where it is not known."""


@dataclass(frozen=True)
class Goldens:
    """All recorded calls of an artifact."""

    sets: tuple[Golden, ...]
    computed_by: str
    """What made the outputs, such as ``eager PyTorch 2.14.1 on the CPU``."""
    source: str = "synthetic"
    """``synthetic``, or ``data`` where the inputs are the user's."""
    seed: int | None = 0


def golden_shapes(records: Sequence[InputRecord]) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Give for each name in ``SETS`` the shapes of all inputs; sets of the same shapes are there once."""
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name in SETS:
        shapes = tuple(_shape(record, name) for record in records)
        if shapes not in found.values():
            found[name] = shapes
    return found


def _shape(record: InputRecord, name: str) -> tuple[int, ...]:
    if name != "between":
        shape: tuple[int, ...] = getattr(record, name)
        return shape
    steps = record.multiple_of or (1,) * len(record.min)
    return tuple(_between(*sizes) for sizes in zip(record.min, record.opt, record.max, steps))


def _between(low: int, opt: int, high: int, step: int) -> int:
    """A size that is none of the three, where there is one: between the usual and the largest, else below the usual."""
    above, below = (opt + high) // 2 // step * step, (low + opt) // 2 // step * step
    return next((size for size in (above, below) if low < size < high and size != opt), opt)


def filled(
    records: Sequence[InputRecord], shapes: Sequence[Sequence[int]], fill: Fill, seed: int
) -> list[torch.Tensor]:
    """Synthetic inputs of ``shapes``, the same on every machine with the same PyTorch."""
    generator = torch.Generator().manual_seed(seed)
    values = fill.values or (None,) * len(records)
    return [
        _tensor(record, tuple(shape), bounds, fill.first, number in fill.lowest, generator)
        for number, (record, shape, bounds) in enumerate(zip(records, shapes, values, strict=True))
    ]


@dataclass(frozen=True)
class Fill:
    """How synthetic inputs are filled, where the dtype and the values seen leave a choice."""

    values: tuple[tuple[float, float] | None, ...] = ()
    """Lowest and highest value of each input, as far as they are known."""
    first: bool = False
    """The first flag of each row of a mask. Which one keeps something of a row is the model's secret."""
    lowest: frozenset[int] = frozenset()
    """Inputs, by number, whose whole numbers are all the lowest that was seen: lengths and positions that fit the
    smallest input."""


def ways_to_fill(records: Sequence[InputRecord], values: tuple[tuple[float, float] | None, ...]) -> Iterator[Fill]:
    """Ways to fill inputs, best first: whole numbers are all the lowest in as few of them as the model lets.

    Args:
        records: The inputs.
        values: Lowest and highest value of each, as far as they are known.
    """
    dtypes: list[torch.dtype] = [getattr(torch, record.dtype) for record in records]
    whole = [n for n, dtype in enumerate(dtypes) if not (dtype.is_floating_point or dtype.is_complex)]
    numbers = [n for n in whole if dtypes[n] is not torch.bool]
    most = len(numbers) if len(numbers) <= _MOST_TOGETHER else 1
    choices = [frozenset(some) for count in range(most + 1) for some in itertools.combinations(numbers, count)]
    for lowest in dict.fromkeys([*choices, frozenset(numbers)]):
        for first in (False, True) if len(numbers) < len(whole) else (False,):
            yield Fill(values, first, lowest)


_MOST_TOGETHER = 3
"""From more inputs than this one alone, or all, are the lowest."""


def _tensor(
    record: InputRecord,
    shape: tuple[int, ...],
    bounds: tuple[float, float] | None,
    first: bool,
    lowest: bool,
    generator: torch.Generator,
) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, record.dtype)
    low, high = bounds or (0, 1)
    if dtype is torch.bool or ((low, high) == (0, 1) and not dtype.is_floating_point and not dtype.is_complex):
        mask = torch.randint(0, 2, shape, generator=generator).to(dtype)
        if mask.dim() and mask.numel():
            mask[..., 0] = first if dtype is torch.bool else not lowest
        return mask
    if dtype.is_complex:
        return torch.randn(shape, dtype=dtype, generator=generator)
    if not dtype.is_floating_point:
        top = int(low) if lowest else int(high)
        return torch.randint(int(low), top + 1, shape, generator=generator, dtype=dtype)
    if bounds is None:
        return torch.randn(shape, generator=generator).to(dtype)
    return (torch.rand(shape, generator=generator) * (high - low) + low).to(dtype)


def call_sizes(records: Sequence[InputRecord], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """Size of each named dimension in a call."""
    return {
        symbol: size
        for record, shape in zip(records, shapes)
        for symbol, size in zip(record.symbols, shape)
        if symbol is not None
    }


def write_goldens(path: Path, records: Sequence[InputRecord], goldens: Goldens) -> FileRecord:
    """Write the file at ``path``; whole or not at all.

    Returns:
        The record for the manifest.

    Raises:
        OutputError: The file cannot be written.
        EnvironmentMismatchError: safetensors is not installed.
    """
    tensors: dict[str, torch.Tensor] = {}
    for golden in goldens.sets:
        for record, tensor in zip(records, golden.inputs, strict=True):
            tensors[f"{golden.name}/inputs/{record.name}"] = tensor.detach().contiguous().clone()
        for name, tensor in golden.outputs.items():
            tensors[f"{golden.name}/outputs/{name}"] = tensor.detach().contiguous().clone()
    described = {
        "version": _VERSION,
        "computed_by": goldens.computed_by,
        "torch": str(torch.__version__),
        "source": goldens.source,
        "seed": goldens.seed,
        "sets": [
            {
                "name": golden.name,
                "sizes": call_sizes(records, [tuple(t.shape) for t in golden.inputs]),
                "rounding": {name: value for name, value in golden.rounding.items() if math.isfinite(value)},
            }
            for golden in goldens.sets
        ],
    }
    data = _safetensors().save(tensors, {_KEY: json.dumps(described)})
    with atomic_file(path) as file:
        file.write(data)
    return FileRecord(file=path.name, size=file.size, sha256=file.sha256)


def read_goldens(artifact: Artifact, path: Path | None = None) -> Goldens | None:
    """The goldens beside ``artifact``, or those in the file at ``path``; ``None`` where there are none.

    Returns:
        The goldens, or ``None`` where there are none.

    Raises:
        ArtifactError: The file differs from that of the export, or does not hold goldens of this artifact.
        EnvironmentMismatchError: safetensors is not installed.
    """
    if path is None:
        if artifact.manifest.golden is None:
            return None
        if issues := list(golden_issues(artifact)):
            raise ArtifactError(artifact.path, issues)
        path = artifact.paths.golden
    module = _safetensors()
    try:
        with module.safe_open(path, framework="pt", device="cpu") as file:
            described = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no dict
        return _parsed(artifact, described, tensors)
    # safetensors has an exception of its own, which derives from Exception alone
    except (module.SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ArtifactError(path, [f"are not goldens of {artifact.path.name}: {error}"]) from error


def _parsed(artifact: Artifact, described: Any, tensors: dict[str, torch.Tensor]) -> Goldens:
    if not isinstance(described, dict) or described.get("version") != _VERSION:
        raise ValueError("its metadata does not say what it is, or is of another version")
    outputs = [record.name for record in artifact.manifest.outputs]
    sets = []
    for item in described["sets"]:
        name = str(item["name"])
        inputs = tuple(tensors[f"{name}/inputs/{record.name}"] for record in artifact.manifest.inputs)
        recorded = {key: tensors[f"{name}/outputs/{key}"] for key in outputs if f"{name}/outputs/{key}" in tensors}
        rounding = {key: float(item["rounding"][key]) for key in recorded if key in item["rounding"]}
        sets.append(Golden(name, inputs, recorded, rounding))
    return Goldens(tuple(sets), str(described["computed_by"]), str(described["source"]), described["seed"])


class _Safetensors:
    """What is needed of safetensors, which is imported when there is something to read or write."""

    def __init__(self) -> None:
        try:
            from safetensors import SafetensorError, safe_open
            from safetensors.torch import save
        except ImportError as error:
            raise EnvironmentMismatchError(
                "goldens need the package safetensors, which is not installed: pip install safetensors"
            ) from error
        self.SafetensorError, self.safe_open, self.save = SafetensorError, safe_open, save


def _safetensors() -> Any:
    return _Safetensors()
