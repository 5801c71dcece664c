"""Arguments in, values out: what ``forward`` takes and returns, flattened and put together again.

The saved program describes both as trees of containers. A class in a tree that nobody registered in this process (a
dataclass, the output class of a library that is not installed here) is a dict with its field names.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils import _pytree as pytree
from torch.utils._pytree import TreeSpec

from lightning_trt_windows.errors import ArtifactError, ConfigurationError

__all__ = ["Argument", "Structure", "arguments_of", "with_known_classes"]

_RECORD = "lightning_trt_windows.record"


class _Record(dict[str, Any]):
    """Stands in trees for a class that this process does not know; values of it are plain dicts."""


def with_known_classes(text: str, namedtuples: Mapping[str, Any], *, outputs: bool) -> str:
    """A serialized tree in which classes that are not registered in this process have become dicts.

    Args:
        text: The tree as ``torch.export.save`` writes it.
        namedtuples: Class name to ``{"field_names": [...]}``, from the same file.
        outputs: Whether values are made of the tree; fields that were ``None`` are then part of the dict.

    Returns:
        The tree as text.
    """
    _register_record()
    protocol, tree = json.loads(text)
    pending = [tree]
    while pending:
        node = pending.pop()
        pending.extend(node["children_spec"])
        kind = node["context"] if node["type"] == "collections.namedtuple" else node["type"]
        if kind is None or kind in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE:
            continue
        names, absent = _field_names(node, namedtuples)
        node["type"], node["context"] = "builtins.dict", json.dumps(names)
        if outputs:
            node["type"], node["context"] = _RECORD, json.dumps([names, absent])
    return json.dumps([protocol, tree])


def _field_names(node: Mapping[str, Any], namedtuples: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names of a container's children, and of its fields that were ``None``, which have no child."""
    count = len(node["children_spec"])
    if node["type"] == "collections.namedtuple":
        names = namedtuples.get(node["context"], {}).get("field_names")
    else:
        try:
            names = json.loads(node["context"])
        except (TypeError, ValueError):
            names = None
    absent: list[str] = []
    # a registered dataclass: [names, names of what is None]
    if isinstance(names, list) and len(names) == 2 and all(isinstance(part, list) for part in names):
        names, absent = names
    fits = isinstance(names, list) and len(names) == count and all(isinstance(n, str) for n in [*names, *absent])
    return (names, absent) if isinstance(names, list) and fits else ([str(n) for n in range(count)], [])


@functools.cache
def _register_record() -> None:
    pytree.register_pytree_node(
        _Record,
        lambda value: (list(value.values()), [list(value), []]),
        lambda children, names: {**dict(zip(names[0], children)), **dict.fromkeys(names[1])},
        serialized_type_name=_RECORD,
    )


@dataclass(frozen=True)
class Argument:
    """One argument of ``forward``, as it was exported."""

    name: str
    spec: TreeSpec
    constant: bool
    """It holds no tensor: it was fixed at the export, and may be left out."""
    values: tuple[Any, ...]
    """What its leaves were at the export; tensors have ``None`` here."""


class Structure:
    """How arguments become the program's inputs, and its outputs what ``forward`` returned."""

    def __init__(self, arguments: Sequence[Argument], positional: int, out_spec: TreeSpec) -> None:
        self.arguments = tuple(arguments)
        self._positional = positional
        self._out_spec = out_spec
        self._one_output = out_spec.is_leaf()
        self._plain = all(argument.spec.is_leaf() for argument in arguments)
        self._names = frozenset(argument.name for argument in arguments)

    def flatten(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves of a call, in the program's order.

        Returns:
            The leaves.

        Raises:
            ConfigurationError: The call does not fit ``forward`` as it was exported.
        """
        if self._plain and not kwargs and len(args) == len(self.arguments) == self._positional:
            return list(args)
        if len(args) > self._positional:
            raise ConfigurationError(
                f"got {len(args)} positional arguments, {self._positional} were exported: {self._signature()}"
            )
        by_name = dict(zip((argument.name for argument in self.arguments), args))
        twice = [name for name in kwargs if name in by_name]
        unknown = [name for name in kwargs if name not in self._names]
        if twice or unknown:
            why = f"got {twice[0]!r} twice" if twice else f"it has no argument {', '.join(map(repr, unknown))}"
            raise ConfigurationError(f"forward was exported as {self._signature()}; {why}")
        by_name.update(kwargs)
        leaves: list[Any] = []
        for argument in self.arguments:
            leaves += self._leaves(argument, by_name)
        return leaves

    def call(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call of which ``flatten`` makes ``leaves``."""
        values: list[Any] = []
        position = 0
        for argument in self.arguments:
            count = argument.spec.num_leaves
            values.append(argument.spec.unflatten(leaves[position : position + count]))
            position += count
        names = [argument.name for argument in self.arguments[self._positional :]]
        return tuple(values[: self._positional]), dict(zip(names, values[self._positional :]))

    def check_constants(self, leaves: Sequence[Any], tensors: Sequence[bool]) -> None:
        """Refuse values that were fixed at the export at another value.

        Raises:
            ConfigurationError: Names the argument, its value at the export and the one given.
        """
        position = 0
        for argument in self.arguments:
            for exported in argument.values:
                given = leaves[position]
                if not tensors[position] and (type(given) is not type(exported) or given != exported):
                    raise ConfigurationError(
                        f"{argument.name} was exported as {exported!r} and is part of the engines, got {given!r}. "
                        "Export the checkpoint with the other value too"
                    )
                position += 1

    def unflatten(self, outputs: Iterable[Any]) -> Any:
        """What ``forward`` returned, of the program's outputs."""
        if self._one_output:
            (output,) = outputs
            return output
        return self._out_spec.unflatten(outputs)

    def _leaves(self, argument: Argument, given: Mapping[str, Any]) -> Sequence[Any]:
        if argument.name not in given:
            if argument.constant:
                return argument.values
            raise ConfigurationError(f"the argument {argument.name!r} is missing; forward is {self._signature()}")
        value = given[argument.name]
        try:
            leaves = [value] if argument.spec.is_leaf() else argument.spec.flatten_up_to(_plain(value, argument.spec))
        except ValueError as error:
            raise ConfigurationError(
                f"{argument.name} has another structure than it had at the export: {error}"
            ) from error
        return leaves

    def _signature(self) -> str:
        names = [a.name for a in self.arguments]
        positional, named = names[: self._positional], names[self._positional :]
        return f"forward({', '.join([*positional, *(f'{name}=...' for name in named)])})"


def arguments_of(
    in_spec: TreeSpec, leaves: Sequence[tuple[bool, Any]], tensors: Sequence[str], names: Sequence[str]
) -> tuple[list[Argument], int]:
    """The arguments that a program takes, and how many of them may be given by position.

    Args:
        in_spec: Of the pair ``(args, kwargs)``.
        leaves: For each leaf whether it is a tensor, and what it was at the export where it is not.
        tensors: Dotted names of the tensors, in order, from the manifest.
        names: Names of the leaves in the graph; they name an argument without tensors.

    Returns:
        The arguments, and how many come first by position.

    Raises:
        ArtifactError: The program and the manifest do not belong together.
    """
    positional, named = _children(in_spec)
    specs = [*_children(positional), *_children(named)]
    keywords = [None] * len(_children(positional)) + list(named.context)
    arguments: list[Argument] = []
    remaining, position = list(tensors), 0
    for spec, keyword in zip(specs, keywords, strict=True):
        own = leaves[position : position + spec.num_leaves]
        count = sum(tensor for tensor, _ in own)
        held, remaining = remaining[:count], remaining[count:]
        name = keyword or (held[0].partition(".")[0] if held else names[position])
        if len(held) != count or any(dotted.partition(".")[0] != name for dotted in held):
            raise ArtifactError(
                name, [f"the manifest lists {', '.join(held) or 'no inputs'} for it, the program {count}"]
            )
        arguments.append(Argument(name, spec, count == 0, tuple(value for _, value in own)))
        position += spec.num_leaves
    return arguments, len(_children(positional))


def _plain(value: Any, spec: TreeSpec) -> Any:
    """``value`` with dicts for objects where the program takes dicts: a batch class is given as its fields."""
    if spec.is_leaf() or spec.type is None:
        return value
    if spec.type is not dict:
        fits = type(value) in (list, tuple) and spec.type is type(value) and len(value) == len(_children(spec))
        return type(value)(map(_plain, value, _children(spec))) if fits else value
    names = list(spec.context)
    if not isinstance(value, Mapping):
        if any(not isinstance(name, str) or not hasattr(value, name) for name in names):
            return value
        value = {name: getattr(value, name) for name in names}
    inner = dict(zip(names, _children(spec)))
    return {key: _plain(item, inner[key]) if key in inner else item for key, item in value.items()}


def _children(spec: TreeSpec) -> list[TreeSpec]:
    # children_specs is the older name of the same
    return list(spec.children() if hasattr(spec, "children") else spec.children_specs)
