"""What the user and the datamodule say about the inputs, in one form, and how it is laid over what was discovered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from inspect import Parameter, Signature
from typing import Any, Protocol, runtime_checkable

from lightning_trt_windows.artifact.manifest import Source
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec, InputTree, parse_input_spec
from lightning_trt_windows.discovery.arguments import described
from lightning_trt_windows.discovery.axes import Axis
from lightning_trt_windows.discovery.observations import SeenTensor
from lightning_trt_windows.discovery.ranges import Ranges
from lightning_trt_windows.errors import ConfigurationError, did_you_mean
from lightning_trt_windows.modules.containers import dotted, join, leaves, map_leaves, split

__all__ = ["Explicit", "HasInputSpecs", "disagreements", "explicit_inputs", "name_symbols", "overlay"]

_CONSTANTS = (type(None), bool, int, float, complex, str)


@runtime_checkable
class HasInputSpecs(Protocol):
    """A datamodule that says what its batches look like, instead of having them watched.

    Example:
        >>> class MyData(LightningDataModule):
        ...     def input_specs(self):
        ...         return {"image": InputSpec(shape=(DimRange(1, 8, 64), 3, 224, 224), dtype="float32")}
    """

    def input_specs(self) -> Mapping[str, InputTree]:
        """Specs by argument of ``forward``; arguments and entries left out are discovered."""


@dataclass(frozen=True)
class Explicit:
    """What is said rather than seen."""

    tree: Mapping[str, InputTree]
    sources: Mapping[str, Source]
    """Source by dotted name of each tensor."""

    @property
    def names(self) -> tuple[str, ...]:
        """Dotted names of what is given."""
        return tuple(name for name, _ in leaves(self.tree))

    @property
    def axes(self) -> dict[Axis, DimRange | int]:
        """Size or range of every axis that is given."""
        specs = [(name, leaf) for name, leaf in leaves(self.tree) if isinstance(leaf, InputSpec)]
        return {(name, axis): size for name, spec in specs for axis, size in enumerate(spec.shape)}

    @property
    def is_partial(self) -> bool:
        """Whether a container is given, which may have more entries than were named."""
        return any(split(tree) is not None for tree in self.tree.values())


class _Entries(dict[str, Any]):
    """Entries of a container whose class is not known: ``inputs={"pair.0": ...}``."""


def explicit_inputs(
    inputs: Mapping[str, InputTree] | None, datamodule: Any, signature: Signature, method: str
) -> Explicit:
    """Bring ``inputs`` and the datamodule's ``input_specs()`` into one tree.

    Returns:
        The tree, and where each input of it comes from.

    Raises:
        ConfigurationError: An argument that ``method`` does not have, or a value that is no spec.
    """
    said = _arguments(inputs or {}, "inputs", signature, method)
    by_user = {name for name, _ in leaves(said)}
    reason = "given as inputs"
    tree, datamodule_name = said, type(datamodule).__name__
    if isinstance(datamodule, HasInputSpecs):
        where = f"{datamodule_name}.input_specs()"
        try:
            specs = datamodule.input_specs()
        except Exception as exc:
            raise ConfigurationError(f"{where} failed: {type(exc).__name__}: {exc}") from exc
        if not isinstance(specs, Mapping):
            raise ConfigurationError(f"{where} must return a mapping by argument of {method}, got {specs!r}")
        tree = overlay(said, _arguments(specs, where, signature, method))
    sources = {
        name: Source(kind="argument", reason=reason)
        if name in by_user
        else Source(kind="datamodule", reason=f"said by {datamodule_name}.input_specs()")
        for name, leaf in leaves(tree)
        if isinstance(leaf, InputSpec)
    }
    return Explicit(tree, sources)


def _arguments(given: Mapping[str, Any], where: str, signature: Signature, method: str) -> dict[str, Any]:
    """``given`` by argument of the signature: dotted names nested, the rest of ``**kwargs`` under its name."""
    rest = next((p.name for p in signature.parameters.values() if p.kind is Parameter.VAR_KEYWORD), None)
    arguments: dict[str, Any] = {}
    for name, value in given.items():
        path = [name] if name in signature.parameters else str(name).split(".")
        if path[0] not in signature.parameters:
            if rest is None:
                hint = did_you_mean(str(name), signature.parameters)
                raise ConfigurationError(f"{where}: {described(signature, method)} has no argument {name!r}{hint}")
            path = [rest, *path]
        entries: dict[str, Any] = arguments
        for key in path[:-1]:
            entries = entries.setdefault(key, _Entries())
            if not isinstance(entries, dict):
                raise ConfigurationError(f"{where}: {name!r} lies inside {key!r}, which is given as a whole")
        entries[path[-1]] = _spec(value, f"{where}[{name!r}]")
    return arguments


def _spec(value: Any, where: str) -> InputTree:
    if isinstance(value, (InputSpec, *_CONSTANTS)):
        return value
    if isinstance(value, Mapping):
        # a mapping with a shape is a spec out of YAML, unless an entry happens to be called shape
        if "shape" in value and not isinstance(value["shape"], (InputSpec, Mapping)):
            return parse_input_spec(value, where)
        return {key: _spec(inner, f"{where}[{key!r}]") for key, inner in value.items()}
    parts = split(value)
    if parts is None:
        raise ConfigurationError(
            f"{where}: expected an InputSpec, a constant or a container of these, got {type(value).__name__}"
        )
    return join(parts, [_spec(child, f"{where}.{key}") for key, child in zip(parts.keys, parts.children)])


def shapes_as_specs(inputs: Mapping[str, Any] | None, seen: Iterable[tuple[str, Any]]) -> Mapping[str, Any] | None:
    """Take plain tuples of sizes for shapes, as other exporters do: ``{"x": (32, 8, 4)}``.

    Args:
        inputs: What the user gave, by argument.
        seen: Leaves of calls that were seen, by dotted name: they tell the types of tensors, and which arguments are
            tuples of numbers themselves.

    Returns:
        ``inputs`` with an ``InputSpec`` in place of each shape; float32 where no tensor was seen.
    """
    if not inputs:
        return inputs
    found = dict(seen)

    def spec(name: str, value: Any) -> Any:
        is_shape = isinstance(value, (tuple, list)) and value and all(map(_is_size, value))
        if not is_shape or any(other.startswith(f"{name}.") for other in found):
            return value
        leaf = found.get(name)
        return InputSpec(tuple(value), leaf.dtype if isinstance(leaf, SeenTensor) else "float32")

    return {name: spec(name, value) for name, value in inputs.items()}


def _is_size(value: Any) -> bool:
    return isinstance(value, DimRange) or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def disagreements(specs: Mapping[str, InputSpec], seen: Iterable[tuple[str, Any]]) -> list[str]:
    """Where what is given is not what was seen, besides the sizes: a sentence each, the first of each kind."""
    notes: dict[tuple[str, str], str] = {}
    for name, leaf in seen:
        spec = specs.get(name)
        if spec is None or not isinstance(leaf, SeenTensor):
            continue
        if len(leaf.shape) != len(spec.shape):
            notes.setdefault((name, "rank"), f"{name} is given as {spec}, and {list(leaf.shape)} was seen")
        if leaf.dtype != spec.dtype:
            notes.setdefault((name, "dtype"), f"{name} is given as {spec.dtype}, and {leaf.dtype} was seen")
        if spec.values and leaf.values and not (spec.values[0] <= leaf.values[0] <= leaf.values[1] <= spec.values[1]):
            given, found = "{:g} to {:g}".format(*spec.values), "{} to {}".format(*leaf.values)
            notes[name, "values"] = f"{name} is given with values {given}, and {found} were seen"
    return list(notes.values())


def overlay(upper: Mapping[str, InputTree], lower: Mapping[str, InputTree]) -> dict[str, InputTree]:
    """``upper`` over ``lower``, leaf by leaf, where both have the same containers.

    Returns:
        The tree of both.

    Raises:
        ConfigurationError: ``upper`` names an entry that a container of ``lower`` does not have.
    """
    merged = {name: _over(tree, lower[name], name) if name in lower else _settled(tree) for name, tree in upper.items()}
    return {**lower, **merged}


def _over(upper: InputTree, lower: InputTree, name: str) -> InputTree:
    above, below = split(upper), split(lower)
    if above is None or below is None:
        return _settled(upper)
    entries = {str(key): child for key, child in zip(above.keys, above.children)}
    known = [str(key) for key in below.keys]
    unknown = [key for key in entries if key not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known, prefix=f"{name}.")
        raise ConfigurationError(f"{dotted(name, unknown[0])}: {name} has only {', '.join(known)}{hint}")
    return join(
        below,
        [
            _over(entries[str(key)], child, dotted(name, key)) if str(key) in entries else child
            for key, child in zip(below.keys, below.children)
        ],
    )


def _settled(tree: InputTree) -> InputTree:
    """Entries of unknown containers become what their keys look like: 0, 1, ... a tuple, names a dict."""
    parts = split(tree)
    if parts is None:
        return tree
    children = [_settled(child) for child in parts.children]
    if isinstance(tree, _Entries):
        by_key = dict(zip(parts.keys, children))
        if set(by_key) == {str(number) for number in range(len(by_key))}:
            return tuple(by_key[str(number)] for number in range(len(by_key)))
        return by_key
    return join(parts, children)


def name_symbols(inputs: Mapping[str, InputTree], ranges: Ranges | None) -> dict[str, InputTree]:
    """Name the dimensions that explicit specs left unnamed, so that those which always agree are one symbol.

    What was seen tells; without it, first axes of equal ranges are taken for the batch.

    Returns:
        The tree with names.

    Raises:
        ConfigurationError: Dimensions of one name have different ranges.
    """
    specs = [leaf for _, leaf in leaves(inputs) if isinstance(leaf, InputSpec)]
    sizes = [size for spec in specs for size in spec.shape if isinstance(size, DimRange)]
    first = {s.shape[0].bounds for s in specs if s.shape and isinstance(s.shape[0], DimRange) and not s.shape[0].name}
    batch = first if len(first) == 1 and {size.bounds for size in sizes if size.name == "batch"} <= first else set()

    def named(name: str, leaf: Any) -> Any:
        if not isinstance(leaf, InputSpec):
            return leaf
        shape = list(leaf.shape)
        for axis, size in enumerate(shape):
            if not isinstance(size, DimRange) or size.name is not None:
                continue
            group = None if ranges is None else ranges.find((name, axis))
            if group is not None and isinstance(group.range, DimRange) and group.range.bounds == size.bounds:
                shape[axis] = replace(size, name=group.range.name)
            elif axis == 0 and size.bounds in batch and group is None:
                shape[axis] = replace(size, name="batch")
        return replace(leaf, shape=tuple(shape))

    result = {name: map_leaves(tree, named, name) for name, tree in inputs.items()}
    _check_names(result)
    return result


def _check_names(inputs: Mapping[str, InputTree]) -> None:
    first: dict[str, tuple[str, DimRange]] = {}
    for name, leaf in leaves(inputs):
        for axis, size in enumerate(leaf.shape if isinstance(leaf, InputSpec) else ()):
            if not isinstance(size, DimRange) or size.name is None:
                continue
            where, other = first.setdefault(size.name, (dotted(name, axis), size))
            if (other.bounds, other.multiple_of) != (size.bounds, size.multiple_of):
                raise ConfigurationError(
                    f"dimensions of one name have one range, but {size.name!r} is {other} in {where} "
                    f"and {size} in {dotted(name, axis)}"
                )
