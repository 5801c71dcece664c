"""Which axes of the inputs always had the same size: the symbols of the program, and which of them is the batch.

Legend: an *axis* is an input's dotted name and the number of a dimension, ``("x", 0)``, written ``x.0``. Axes that had
the same size in every call are one *group*, and a group is one symbol. The batch group is called ``batch``, others that
vary ``dim1``, ``dim2``, ... in order of appearance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lightning_trt_windows.artifact.shapes import DimRange
from lightning_trt_windows.discovery.observations import SeenTensor
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["Axis", "Group", "Sample", "group_axes", "spelled", "symbol_of"]

Axis: TypeAlias = tuple[str, int]
"""Dotted name of an input, number of the dimension."""
_Vector: TypeAlias = tuple[int, ...]
"""Size of one axis in each sample."""


@dataclass(frozen=True)
class Sample:
    """The tensors of calls that looked the same."""

    stage: str
    count: int
    """How many calls."""
    tensors: Mapping[str, SeenTensor]
    """Shape of each tensor, by dotted name."""


@dataclass
class Group:
    """Axes that had the same size in every call, and the range they get."""

    axes: tuple[Axis, ...]
    sizes: Mapping[str, Counter[int]]
    """Number of calls by size, by stage."""
    name: str = ""
    """Name of the symbol; empty where the size never varied."""
    range: DimRange | int = 0
    reason: str = ""

    @property
    def seen(self) -> Counter[int]:
        """Number of calls by size, over all stages."""
        return sum(self.sizes.values(), Counter())

    @property
    def names(self) -> frozenset[str]:
        """What a user may call it: its symbol or one of its axes."""
        return frozenset({self.name, *map(spelled, self.axes)} - {""})


def spelled(axis: Axis) -> str:
    """``x.0``, as options and messages write an axis."""
    return f"{axis[0]}.{axis[1]}"


def symbol_of(name: str, axis: int, dim: DimRange) -> str:
    """What a program calls the size of an axis: by the name that it was given, or by its own."""
    return re.sub(r"\W", "_", dim.name or f"{name}_{axis}")


@dataclass
class _Vectors:
    """The sizes that are compared."""

    samples: Sequence[Sample]
    by_axis: dict[Axis, _Vector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = list(dict.fromkeys(name for sample in self.samples for name in sample.tensors))
        # only calls that had everything can tell what agrees with what
        whole = [sample for sample in self.samples if len(sample.tensors) == len(names)]
        for name in names:
            rank = len(next(s.tensors[name].shape for s in self.samples if name in s.tensors))
            for axis in range(rank):
                self.by_axis[name, axis] = tuple(sample.tensors[name].shape[axis] for sample in whole)

    def sizes(self, axes: Collection[Axis]) -> dict[str, Counter[int]]:
        """Number of calls by size, by stage, also of the calls that lacked another input."""
        counts: dict[str, Counter[int]] = {}
        for sample in self.samples:
            name, axis = next((a for a in axes if a[0] in sample.tensors), ("", 0))
            if name:
                counts.setdefault(sample.stage, Counter())[sample.tensors[name].shape[axis]] += sample.count
        return counts


def group_axes(
    samples: Sequence[Sample],
    *,
    loader_sizes: Collection[int],
    same: Sequence[Sequence[str]] = (),
    dynamic: Collection[str] = (),
) -> list[Group]:
    """Group the axes of all tensors in ``samples``, in order of appearance.

    Args:
        samples: At least one; the rank of each tensor is the same in all of them.
        loader_sizes: ``batch_size`` of the loaders, where known.
        same: Axes that are said to have equal sizes, beyond what the calls show.
        dynamic: Axes that are said to be dynamic, whether or not they varied.

    Returns:
        The groups.

    Raises:
        ConfigurationError: ``same`` names an axis that is not there, or axes of different sizes.
    """
    vectors = _Vectors(samples)
    batch = _batch_axes(vectors.by_axis, set(loader_sizes))
    sets: list[list[Axis]] = [batch] if batch else []
    varying: dict[_Vector, list[Axis]] = {}
    for axis, vector in vectors.by_axis.items():
        if axis in batch:
            continue
        if len(set(vector)) > 1:
            varying.setdefault(vector, []).append(axis)
        else:
            sets.append([axis])
    for axes in varying.values():
        # height and width of an image that was always square are two dimensions all the same
        sets.extend([axes] if len({name for name, _ in axes}) > 1 else [[axis] for axis in axes])
    sets = _unite(sets, same, vectors.by_axis)
    order = {axis: number for number, axis in enumerate(vectors.by_axis)}
    sets.sort(key=lambda axes: min(order[axis] for axis in axes))
    groups = [Group(tuple(sorted(axes, key=order.__getitem__)), vectors.sizes(axes)) for axes in sets]
    number = 0
    for group in groups:
        if batch and batch[0] in group.axes:
            group.name = "batch"
        elif len(group.seen) > 1 or group.names & set(dynamic):
            number += 1
            group.name = f"dim{number}"
    return groups


def _batch_axes(vectors: Mapping[Axis, _Vector], loader_sizes: set[int]) -> list[Axis]:
    """The axes that count samples: the first of each tensor, unless the calls say otherwise."""
    first = {axis: vector for axis, vector in vectors.items() if axis[1] == 0}
    if not first:
        return []
    votes = Counter(first.values())
    # what the loader says, then what varies (a last smaller batch), then the majority of first axes, then of all axes
    everywhere = Counter(vectors.values())
    chosen = max(votes, key=lambda v: (bool(loader_sizes & set(v)), len(set(v)) > 1, votes[v], everywhere[v]))
    if not loader_sizes & set(chosen):
        moved = _batch_elsewhere(vectors, chosen, loader_sizes)
        if moved or _has_no_batch(first, chosen, loader_sizes) or _is_one_of_many(vectors, chosen, loader_sizes):
            return moved
    axes = [axis for axis, vector in first.items() if vector == chosen]
    if len(set(chosen)) > 1:
        # time-major tensors beside batch-major ones
        names = {name for name, _ in axes}
        for axis, vector in vectors.items():
            if vector == chosen and axis[0] not in names:
                names.add(axis[0])
                axes.append(axis)
    return axes


def _batch_elsewhere(vectors: Mapping[Axis, _Vector], chosen: _Vector, loader_sizes: set[int]) -> list[Axis]:
    """Axes other than the first that follow the loader's batch size when no first axis ever does (time-major)."""
    fixed = len(set(chosen)) == 1 and _is_unrelated(chosen[0], loader_sizes)
    for vector in vectors.values():
        if vector and max(vector) in loader_sizes and (len(set(vector)) > 1 or fixed):
            return [axis for axis, other in vectors.items() if other == vector]
    return []


def _is_unrelated(size: int, loader_sizes: set[int]) -> bool:
    # frames of several samples in a row make a first axis that is a multiple; halves and pairs divide
    return bool(size and loader_sizes) and not any(size % s == 0 or s % size == 0 for s in loader_sizes)


def _has_no_batch(first: Mapping[Axis, _Vector], chosen: _Vector, loader_sizes: set[int]) -> bool:
    """Whether no first axis counts samples: each sample is a tensor of its own, as detectors take their images."""
    if len(set(chosen)) == 1 and _is_unrelated(chosen[0], loader_sizes) and chosen[0] > max(loader_sizes):
        return True
    names = [name.rpartition(".") for (name, _), vector in first.items() if vector == chosen]
    lengths = Counter(prefix for prefix, _, key in names if key.isdigit())
    return all(key.isdigit() and lengths[prefix] in loader_sizes for prefix, _, key in names)


def _is_one_of_many(vectors: Mapping[Axis, _Vector], chosen: _Vector, loader_sizes: set[int]) -> bool:
    """Whether the first axis counts parts of one sample, such as the nodes of a graph, and not samples.

    Nodes of graphs in a row have sizes that no batch size explains, and edges vary beside them without following them.
    """
    if len({size for size in chosen if _is_unrelated(size, loader_sizes)}) > 1:
        return True
    following = {name for (name, _), vector in vectors.items() if vector == chosen}
    explained = {vector for (name, _), vector in vectors.items() if name in following}
    return any(
        len(set(vector)) > 1 and vector not in explained
        for (name, _), vector in vectors.items()
        if name not in following
    )


def _unite(sets: list[list[Axis]], same: Sequence[Sequence[str]], vectors: Mapping[Axis, _Vector]) -> list[list[Axis]]:
    by_name = {spelled(axis): axis for axis in vectors}
    for names in same:
        unknown = [name for name in names if name not in by_name]
        if unknown:
            raise ConfigurationError(f"same: no dimension {unknown[0]!r}; known are {', '.join(by_name)}")
        axes = [by_name[name] for name in names]
        for axis in axes[1:]:
            if vectors[axis] != vectors[axes[0]]:
                pair = next((a, b) for a, b in zip(vectors[axes[0]], vectors[axis]) if a != b)
                raise ConfigurationError(
                    f"same: {names[0]} and {spelled(axis)} had different sizes in one call, {pair[0]} and {pair[1]}"
                )
        touched = [group for group in sets if set(group) & set(axes)]
        sets = [group for group in sets if group not in touched] + [[axis for group in touched for axis in group]]
    return sets
