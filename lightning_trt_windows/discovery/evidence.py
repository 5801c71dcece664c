"""Many calls, one answer: what all of them agree on, and a clear complaint where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lightning_trt_windows.artifact.manifest import Source, SourceKind
from lightning_trt_windows.artifact.shapes import DTYPES, DimRange, InputSpec
from lightning_trt_windows.discovery.axes import Axis, Sample
from lightning_trt_windows.discovery.observations import SeenConstant, SeenObject, SeenTensor, same_constant
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.discovery.ranges import MOST_SIZES, Ranges, counted, derive_ranges
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.containers import dotted, join, leaves, map_leaves, split
from lightning_trt_windows.modules.registration import registration_code
from lightning_trt_windows.modules.varying import Varying, can_be_told

__all__ = ["Call", "Derived", "derive"]

MOST_NAMED = 3
"""Calls named in a complaint."""


@dataclass(frozen=True)
class Call:
    """Calls of the exported method that looked the same, arguments by name."""

    stage: str
    count: int
    first: int
    """Number of the batch of the first of them within its stage, from 1."""
    arguments: Mapping[str, Any]
    """Trees of what was seen."""

    def __str__(self) -> str:
        return f"{self.stage or 'call'} batch {self.first}"


@dataclass(frozen=True)
class Derived:
    """Specs, constants and reasons from evidence alone."""

    inputs: Mapping[str, Any]
    sources: Mapping[str, Source]
    """Source by dotted name, of tensors only."""
    ranges: Ranges | None
    """``None`` where no tensor was seen."""
    notes: tuple[str, ...]


def derive(
    calls: Sequence[Call],
    *,
    method: str,
    kind: SourceKind,
    reason: str,
    given: Collection[str] = (),
    pinned: Mapping[Axis, DimRange | int] | None = None,
    loader_sizes: Mapping[str, Collection[int]] = MappingProxyType({}),
    options: RangeOptions = RangeOptions(),  # noqa: B008 -- frozen
) -> Derived:
    """Derive the inputs of ``method`` from ``calls``.

    Args:
        calls: At least one.
        method: For messages.
        kind: Kind of evidence, for the manifest.
        reason: One sentence on where the evidence comes from, for the manifest.
        given: Dotted names that are given explicitly, with all beneath them: contradictions there do not matter.
        pinned: See ``derive_ranges``.
        loader_sizes: Likewise.
        options: Likewise.

    Returns:
        The inputs with their ranges, and where each range comes from.

    Raises:
        ShapeDiscoveryError: The calls contradict each other, or hold something that cannot be an input.
    """
    notes: list[str] = []
    calls = _without_repeats(calls)
    calls = _without_texts(calls, given, notes)
    calls = _with_values_settled(calls, given)
    model = _model_call(calls, method, given, notes)
    samples = _samples(calls, {n for n, seen in leaves(model.arguments) if isinstance(seen, SeenTensor)}, given)
    ranges = None
    if any(sample.tensors for sample in samples):
        ranges = derive_ranges(samples, loader_sizes=loader_sizes, options=options, pinned=pinned or {})
    sources: dict[str, Source] = {}

    def spec(name: str, seen: Any) -> Any:
        if _is_given(name, given):
            return None
        if isinstance(seen, SeenConstant):
            return _constant(name, calls, method, notes)
        if isinstance(seen, Varying):
            return seen
        if isinstance(seen, SeenObject):
            message = _unknown_class(name, seen, method)
            if name in model.arguments:
                raise ShapeDiscoveryError(message)
            return Varying(name, seen.what, message)
        found = [ranges.find((name, axis)) for axis in range(len(seen.shape))] if ranges else []
        groups = [group for group in found if group is not None]
        sources[name] = Source(
            kind=kind,
            reason=reason,
            dims=tuple(group.reason for group in groups),
            sizes=tuple(counted(group.seen) for group in groups),
            shapes=_shapes(name, samples),
        )
        return InputSpec(tuple(group.range for group in groups), seen.dtype, _values(name, calls))

    inputs = {name: map_leaves(tree, spec, name) for name, tree in model.arguments.items()}
    return Derived(inputs, sources, ranges, (*notes, *(ranges.notes if ranges else ())))


def _shapes(name: str, samples: Sequence[Sample]) -> dict[str, int]:
    """Whole shapes of a tensor that were seen, the most frequent first; none of a number."""
    seen: Counter[tuple[int, ...]] = Counter()
    for sample in samples:
        if (tensor := sample.tensors.get(name)) is not None and tensor.shape:
            seen[tuple(tensor.shape)] += sample.count
    return {"x".join(map(str, shape)): count for shape, count in seen.most_common(MOST_SIZES)}


def _is_given(name: str, given: Collection[str]) -> bool:
    return any(name == other or name.startswith(other + ".") for other in given)


def _without_repeats(calls: Sequence[Call]) -> list[Call]:
    """Sanity checking runs validation batches; where validation itself ran they have been counted."""
    if any(call.stage == "val" for call in calls):
        return [call for call in calls if call.stage != "sanity"]
    return list(calls)


def _without_texts(calls: Sequence[Call], given: Collection[str], notes: list[str]) -> list[Call]:
    """Leave file names and captions out of dicts: no program takes text, and it differs in every batch."""
    said: dict[str, set[Any]] = {}
    for call in calls:
        for name, seen in leaves(call.arguments):
            if isinstance(seen, SeenConstant):
                said.setdefault(name, set()).update(v for v in seen.values if isinstance(v, str))
    varying = {name for name, values in said.items() if len(values) > 1}
    dropped: dict[str, None] = {}

    def prune(name: str, tree: Any) -> Any:
        parts = split(tree)
        if parts is None:
            return tree
        kept = [(key, child) for key, child in zip(parts.keys, parts.children)]
        if issubclass(parts.cls, Mapping) and parts.context is None:
            texts = {key for key, child in kept if _is_text(dotted(name, key), child, varying)}
            dropped.update({dotted(name, key): None for key in texts if not _is_given(dotted(name, key), given)})
            kept = [(key, child) for key, child in kept if key not in texts]
            parts = parts._replace(keys=tuple(key for key, _ in kept))
        return join(parts, [prune(dotted(name, key), child) for key, child in kept])

    pruned = [
        Call(c.stage, c.count, c.first, {name: prune(name, tree) for name, tree in c.arguments.items()}) for c in calls
    ]
    notes += [f"{name} is text, which no program takes; it is left out" for name in dropped]
    return pruned


def _with_values_settled(calls: Sequence[Call], given: Collection[str]) -> list[Call]:
    """Lists and other containers of values that differ from call to call become one value that varies, each."""
    replaced: dict[str, Varying] = {}

    def settle(name: str, trees: Sequence[Any]) -> None:
        if _is_given(name, given):
            return
        apart = [parts for tree in trees if (parts := split(tree)) is not None]
        if len(apart) < len(trees):
            return
        alike = len({parts[:2] for parts in apart}) == 1
        seen = [leaf for tree in trees for _, leaf in leaves({"": tree})]
        if not alike and not any(isinstance(leaf, SeenTensor) for leaf in seen):
            replaced[name] = Varying(name, f"containers of {_kinds(seen)}", _way_on(name, None))
        if alike:
            for number, key in enumerate(apart[0].keys):
                settle(dotted(name, key), [parts.children[number] for parts in apart])

    for name in dict.fromkeys(name for call in calls for name in call.arguments):
        settle(name, [call.arguments[name] for call in calls if name in call.arguments])

    def change(name: str, tree: Any) -> Any:
        if name in replaced:
            return replaced[name]
        parts = split(tree)
        if parts is None:
            return tree
        return join(parts, [change(dotted(name, key), child) for key, child in zip(parts.keys, parts.children)])

    if not replaced:
        return list(calls)
    return [
        Call(c.stage, c.count, c.first, {name: change(name, tree) for name, tree in c.arguments.items()}) for c in calls
    ]


def _kinds(seen: Sequence[Any]) -> str:
    kinds = {type(value).__name__ for leaf in seen for value in getattr(leaf, "values", None) or ()}
    return " and ".join(sorted(kinds)) or "nothing"


def _way_on(name: str, value: Any) -> str:
    if value is None:
        return f"Pass tensors in {name}, or leave it out of what forward reads"
    return f"Pass a tensor instead, or choose: inputs={{'{name}': {value!r}}}"


def _is_text(name: str, tree: Any, varying: Collection[str]) -> bool:
    if isinstance(tree, SeenConstant):
        return name in varying
    if isinstance(tree, SeenObject):
        return tree.what.endswith("values of str")
    parts = split(tree)
    return bool(parts and parts.children) and all(
        isinstance(seen, SeenConstant) and all(isinstance(value, str) for value in seen.values)
        for _, seen in leaves({name: tree})
    )


def _model_call(calls: Sequence[Call], method: str, given: Collection[str], notes: list[str]) -> Call:
    """A call whose containers and arguments stand for all. What evaluation does is what will be deployed."""
    structures: dict[frozenset[tuple[str, str]], list[Call]] = {}
    for call in calls:
        key = frozenset(
            (name, "tensor" if isinstance(seen, SeenTensor) else "constant")
            for name, seen in leaves(call.arguments)
            if not _is_given(name, given)
        )
        structures.setdefault(key, []).append(call)
    if len(structures) == 1:
        return calls[0]
    evaluated = [key for key, same in structures.items() if any(call.stage not in ("train", "") for call in same)]
    if len(evaluated) == 1:
        chosen = structures[evaluated[0]]
        training = next(key for key in structures if key != evaluated[0])
        differ = ", ".join(sorted({name for name, _ in training ^ evaluated[0]})[: 2 * MOST_NAMED])
        notes.append(f"training and evaluation call {method} differently ({differ}); evaluation is what is exported")
        return next(call for call in chosen if call.stage not in ("train", ""))
    common = frozenset.intersection(*structures)
    lines = [
        f"  - {_first_calls(same)}: {', '.join(sorted(f'{name} ({what})' for name, what in key - common)) or 'nothing'}"
        for key, same in list(structures.items())[: 2 * MOST_NAMED]
    ]
    raise ShapeDiscoveryError(
        f"the calls of {method} differ in structure, and an artifact has one. Beyond what all of them have:\n"
        + "\n".join(lines)
        + f"\nGive the inputs explicitly, or bring the batches to one structure before they reach {method}."
    )


def _first_calls(calls: Sequence[Call]) -> str:
    shown = ", ".join(str(call) for call in calls[:MOST_NAMED])
    return shown + (", ..." if len(calls) > MOST_NAMED else "")


def _samples(calls: Sequence[Call], names: Collection[str], given: Collection[str]) -> list[Sample]:
    samples = [
        Sample(
            call.stage,
            call.count,
            {name: s for name, s in leaves(call.arguments) if name in names and isinstance(s, SeenTensor)},
        )
        for call in calls
    ]
    for name in names:
        contradicted = _contradiction(name, samples, calls)
        if contradicted is None:
            continue
        if not _is_given(name, given):
            raise ShapeDiscoveryError(contradicted)
        # nothing to learn from it, and its spec is given
        samples = [
            Sample(s.stage, s.count, {other: t for other, t in s.tensors.items() if other != name}) for s in samples
        ]
    return samples


def _contradiction(name: str, samples: Sequence[Sample], calls: Sequence[Call]) -> str | None:
    """What is wrong with the tensor ``name``: its rank or dtype varies, or is none we know."""
    for what, of in (("number of dimensions", lambda t: len(t.shape)), ("dtype", lambda t: t.dtype)):
        found: dict[Any, list[Call]] = {}
        for sample, call in zip(samples, calls):
            if name in sample.tensors:
                found.setdefault(of(sample.tensors[name]), []).append(call)
        if len(found) > 1:
            lines = [f"  - {value}: {_first_calls(same)}" for value, same in found.items()]
            return (
                f"the {what} of {name} varies between calls, and an artifact has one:\n"
                + "\n".join(lines)
                + f"\nMake the batches alike, or give {name} explicitly."
            )
        (value,) = found
        if what == "dtype" and value not in DTYPES:
            return f"{name} is {value}, which no engine takes; known are {', '.join(sorted(DTYPES))}"
    return None


def _constant(name: str, calls: Sequence[Call], method: str, notes: list[str]) -> Any:
    values: list[Any] = []
    for call in calls:
        seen = dict(leaves(call.arguments)).get(name)
        for value in seen.values if isinstance(seen, SeenConstant) else ():
            if not any(same_constant(value, other) for other in values):
                values.append(value)
    if len(values) > 1:
        listed = ", ".join(repr(value) for value in values[:MOST_NAMED]) + (", ..." if len(values) > MOST_NAMED else "")
        if all(can_be_told(value) for value in values):
            return Varying(name, listed, _way_on(name, values[0]))
        way_on = _way_on(name, next(value for value in values if value is not None))
        raise ShapeDiscoveryError(
            f"{name} is not a tensor and varies between calls of {method}: {listed}. "
            f"It would be baked into the artifact. {way_on}"
        )
    if values[0] is not None and not name.rpartition(".")[2].isdigit():
        notes.append(f"{name} was {values[0]!r} in every call and is baked in")
    return values[0]


def _values(name: str, calls: Sequence[Call]) -> tuple[float, float] | None:
    """Lowest and highest integer seen, over all stages."""
    pairs = [
        seen.values
        for call in calls
        for leaf, seen in leaves(call.arguments)
        if leaf == name and isinstance(seen, SeenTensor) and seen.values is not None
    ]
    return (min(low for low, _ in pairs), max(high for _, high in pairs)) if pairs else None


def _unknown_class(name: str, seen: SeenObject, method: str) -> str:
    if seen.cls.__module__ == "numpy":
        return f"{name} is {seen.what}; make it a tensor before it reaches {method}"
    if issubclass(seen.cls, (list, tuple)) or "layout" in seen.what:
        return f"{name} is {seen.what}, which cannot be an input of {method}; make it a dense tensor"
    return f"{name} is {seen.what}, a class that torch.export cannot take apart. Register it:\n\n" + registration_code(
        seen.cls
    )
