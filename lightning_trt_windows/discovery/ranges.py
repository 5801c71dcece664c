"""From the sizes that were seen to the ranges of a program's symbols, with the reason for each."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from lightning_trt_windows.artifact.shapes import DimRange
from lightning_trt_windows.discovery.axes import Axis, Group, Sample, group_axes, spelled
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ConfigurationError, ShapeDiscoveryError

__all__ = ["EXAMPLE", "MOST_SIZES", "Ranges", "UnseenSymbolError", "counted", "derive_ranges"]

EXAMPLE = "example"
"""Stage of what was not seen in any loader."""
MOST_SIZES = 256
"""Different sizes of an axis that the manifest lists."""
EVERYTHING_AT_ONCE = 16
"""A loader's ``batch_size`` so many times larger than any batch seen means "all of it", not a size."""


@dataclass(frozen=True)
class Ranges:
    """What was derived."""

    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    def find(self, axis: Axis) -> Group | None:
        """The group an axis belongs to; ``None`` where the axis was not seen."""
        return next((group for group in self.groups if axis in group.axes), None)


def derive_ranges(
    samples: Sequence[Sample],
    *,
    loader_sizes: Mapping[str, Collection[int]],
    options: RangeOptions,
    pinned: Mapping[Axis, DimRange | int],
) -> Ranges:
    """Group the axes of ``samples`` and give each group its range.

    Args:
        samples: At least one; the rank of each tensor is the same in all of them.
        loader_sizes: ``batch_size`` of the loaders of each stage, where known.
        options: The user's.
        pinned: Axes whose size or range is given explicitly; the axes that always agree with them follow.

    Returns:
        The ranges, with a reason for each.

    Raises:
        ConfigurationError: An option names a dimension that is not there.
        ShapeDiscoveryError: An option names a symbol, and nothing varied that could be called so.
    """
    groups = group_axes(
        samples,
        loader_sizes={size for sizes in loader_sizes.values() for size in sizes},
        same=options.same,
        dynamic=[*options.dynamic, *(spelled(axis) for axis, size in pinned.items() if isinstance(size, DimRange))],
    )
    _check_options(options, groups)
    notes: list[str] = []
    for group in groups:
        if _pin(group, pinned, notes) or _by_option(group, options):
            continue
        if group.name == "batch":
            _batch_range(group, loader_sizes, options, notes)
        elif group.name:
            _other_range(group, options)
        else:
            (group.range,) = group.seen
            group.reason = f"always {group.range}"
    return Ranges(tuple(groups), tuple(notes))


class UnseenSymbolError(ShapeDiscoveryError):
    """An option is about a symbol that nothing has shown yet; later calls may."""


def _check_options(options: RangeOptions, groups: Sequence[Group]) -> None:
    known = {name for group in groups for name in group.names}
    for option in ("static", "dynamic", "caps"):
        for name in getattr(options, option):
            if name not in known:
                listed = ", ".join(dict.fromkeys([g.name for g in groups if g.name] + sorted(known)))
                if re.fullmatch(r"batch|dim\d+", name):
                    # a symbol stands for what varies, and more calls may show that
                    raise UnseenSymbolError(f"RangeOptions.{option}: nothing seen is {name!r}; known are {listed}")
                raise ConfigurationError(f"RangeOptions.{option}: no dimension {name!r}; known are {listed}")
    for group in groups:
        static, dynamic = group.names & set(options.static), group.names & set(options.dynamic)
        if static and dynamic:
            raise ConfigurationError(
                f"RangeOptions: {min(static)} is static and {min(dynamic)} dynamic, and they are one"
            )


def _pin(group: Group, pinned: Mapping[Axis, DimRange | int], notes: list[str]) -> bool:
    """Take the range of the first axis that the user gave one for."""
    axis = next((axis for axis in group.axes if axis in pinned), None)
    if axis is None:
        return False
    given = pinned[axis]
    if isinstance(given, DimRange):
        group.range = given if given.name else replace(given, name=group.name)
        low, high = given.min, given.max
    else:
        group.range = low = high = given
    group.reason = f"{group.range} as given for {spelled(axis)}"
    outside = sorted(size for size in group.seen if not low <= size <= high)
    if outside:
        sizes = ", ".join(map(str, outside[:3])) + (", ..." if len(outside) > 3 else "")
        notes.append(f"{spelled(axis)}: the sizes {sizes} were seen and lie outside the given {given}")
    return True


def _by_option(group: Group, options: RangeOptions) -> bool:
    for name in group.names:
        if name in options.dynamic:
            group.range = replace(options.dynamic[name], name=options.dynamic[name].name or group.name)
            group.reason = f"{group.name}: {group.range} by the option dynamic[{name!r}] (seen: {_counts(group.sizes)})"
            return True
    for name in group.names:
        if name in options.static:
            group.range = _usual(group.seen) if group.name == "batch" else _typical(group.seen)
            group.reason = f"fixed at {group.range} by the option static (seen: {_counts(group.sizes)})"
            return True
    return False


def _batch_range(
    group: Group, loader_sizes: Mapping[str, Collection[int]], options: RangeOptions, notes: list[str]
) -> None:
    """Min 1, opt the usual size, max the largest seen or the loader's batch size."""
    seen = group.seen
    usual, largest = _usual(seen), max(seen)
    said = max(((size, stage) for stage, sizes in loader_sizes.items() for size in sizes), default=(0, ""))
    because = "largest"
    if said[0] > EVERYTHING_AT_ONCE * max(largest, 1):
        notes.append(f"batch: the {said[1]} loader's batch_size {said[0]} is far beyond any batch seen and left aside")
    elif said[0] > largest:
        largest, because = said[0], f"largest (batch_size of the {said[1]} loader)"
        if set(group.sizes) == {EXAMPLE}:
            # one made-up example says nothing about what is usual
            usual = largest
    cap = _cap(group, options)
    if cap is not None and cap < largest:
        largest, usual, because = cap, min(usual, cap), "largest (capped)"
    if largest <= 1:
        group.range = largest
        group.reason = f"batch: fixed at {largest}, the only size seen ({_counts(group.sizes)})"
        notes.append(
            f"the batch dimension is fixed at {largest}: no other size was ever seen; RangeOptions(dynamic="
            "{'batch': [1, 8, 32]}) or an explicit input makes it dynamic"
        )
        return
    group.range = DimRange(1, max(usual, 1), largest, name=group.name)
    group.reason = f"batch: 1 by rule, {max(usual, 1)} usual ({_counts(group.sizes)}), {largest} {because}"


def _other_range(group: Group, options: RangeOptions) -> None:
    """Min and max as seen, opt the median; then margin, rounding, caps."""
    seen = group.seen
    step = _common_factor(seen)
    why = [f"multiples of {step}"] if step > 1 else []
    low, high, opt = min(seen), max(seen), _typical(seen)
    if options.margin:
        low, high = math.floor(low * (1 - options.margin)), math.ceil(high * (1 + options.margin))
        why.append(f"margin {options.margin:.0%}")
    if options.round_to > 1:
        why.append(f"rounded to {options.round_to}")
    rounding = math.lcm(step, options.round_to)
    # rounding down to nothing leaves the smallest size that the relation allows
    low = max(low // rounding * rounding, step)
    high = -(-high // rounding) * rounding
    cap = _cap(group, options)
    if cap is not None and cap < high:
        why.append(f"capped at {cap}")
        high = max(cap // step * step, step)
        low = min(low, high)
    group.range = DimRange(low, min(max(opt, low), high), high, name=group.name, multiple_of=step)
    if group.range.is_static:
        group.range = high
    others = f", equal in {', '.join(map(spelled, group.axes))}" if len(group.axes) > 1 else ""
    extras = f"; {', '.join(why)}" if why else ""
    group.reason = (
        f"{group.name}: {min(seen)} to {max(seen)} seen, {opt} typical ({_counts(group.sizes)}){others}{extras}"
    )


def _cap(group: Group, options: RangeOptions) -> int | None:
    return min((options.caps[name] for name in group.names if name in options.caps), default=None)


def _usual(seen: Counter[int]) -> int:
    """The most frequent size, the larger one of two that are equally frequent."""
    return max(seen, key=lambda size: (seen[size], size))


def _typical(seen: Counter[int]) -> int:
    """The median, which is a size that was really seen."""
    middle, passed = (seen.total() + 1) // 2, 0
    for size in sorted(seen):
        passed += seen[size]
        if passed >= middle:
            return size
    raise AssertionError("a group has been seen at least once")


def _common_factor(seen: Counter[int]) -> int:
    """A factor that all sizes share by design: a power of two from 8, or the 14 of vision transformers; else 1."""
    sizes = [size for size in seen if size]
    if len(sizes) < 3:
        return 1
    factor = math.gcd(*sizes)
    power = factor & -factor
    if power >= 8:
        return power
    return 14 if factor % 14 == 0 else 1


def counted(seen: Counter[int]) -> dict[str, int]:
    """``seen`` for the manifest, the most frequent sizes first, and the two ends whatever else is left out."""
    ends = {size: seen[size] for size in (min(seen), max(seen))}
    return {str(size): count for size, count in {**dict(seen.most_common(MOST_SIZES - 2)), **ends}.items()}


def _counts(sizes: Mapping[str, Counter[int]]) -> str:
    """``train 22x64, 1x29; val 6x64``: number of calls and size, most frequent first."""
    parts = []
    for stage, seen in sizes.items():
        top = sorted(seen, key=lambda size: (-seen[size], -size))
        shown = ", ".join(f"{seen[size]}x{size}" for size in top[:3])
        more = f" and {len(top) - 3} other sizes" if len(top) > 3 else ""
        parts.append(f"{stage} {shown}{more}".strip())
    return "; ".join(parts)
