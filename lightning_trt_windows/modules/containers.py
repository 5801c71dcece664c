"""Nested arguments: what counts as a container, how to take one apart and to put one together again.

A *tree* is a leaf or a container of trees. Containers are dicts, lists, tuples and NamedTuples, dataclasses, attrs
classes and pydantic models, mappings of other classes, and whatever is registered with ``torch.utils._pytree`` (the
outputs of transformers, for one). Everything else is a leaf: tensors, ``InputSpec``, flags, numbers, strings, and
objects of unknown classes.

A leaf is called by its *dotted name*, the argument followed by keys, indices and field names: ``x``, ``batch.image``,
``pair.0``.

Trees of what is not tensors (shapes, specs) are made of dicts, lists, tuples, NamedTuples, and ``Node`` for all other
classes: no constructor of the user's sees them. ``built`` makes real containers of a tree, for a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.modules.stored import declared_fields, holds_tensors, made_of, state_of, with_field_names

__all__ = [
    "OURS",
    "Leaf",
    "Node",
    "Parts",
    "built",
    "dotted",
    "is_named_tuple",
    "is_registered",
    "join",
    "leaves",
    "map_leaves",
    "plain_key",
    "rebuilt",
    "split",
    "split_plain",
]


class Leaf:
    """Base of values that are leaves although they look like containers."""


_LEAVES = (torch.Tensor, InputSpec, DimRange, Leaf, str, bytes, int, float, type(None), type)
OURS: set[type] = set()
"""Classes that we have made known to PyTorch: taken apart as if nobody had."""


class Parts(NamedTuple):
    """One container taken apart; ``join`` is the way back."""

    cls: type
    """Class of the container."""
    keys: tuple[Any, ...]
    """Dict keys, sequence indices or field names, in order."""
    children: tuple[Any, ...]
    """One tree for each key."""
    context: Any = None
    """What it takes to make another one besides the children: of a registered class what its registration says, of a
    dataclass and its like the attributes that hold the children. Nothing for the others."""


@dataclass(frozen=True)
class Node:
    """A container of a class of its own, in a tree that is only described."""

    cls: type
    keys: tuple[Any, ...]
    children: tuple[Any, ...]
    context: Any = field(default=None, compare=False)


def split(value: Any) -> Parts | None:
    """Take the outermost container of ``value`` apart; ``None`` where ``value`` is a leaf."""
    cls = type(value)
    if cls is dict:
        return Parts(dict, tuple(value), tuple(value.values()))
    if cls is tuple or cls is list:
        return Parts(cls, tuple(range(len(value))), tuple(value))
    if cls is Node:
        return Parts(value.cls, value.keys, value.children, value.context)
    if isinstance(value, _LEAVES):
        return None
    if is_registered(cls):
        return _split_registered(value)
    return _split_by_nature(value)


def split_plain(value: Any) -> Parts | None:
    """``split`` that takes objects of any class of Python's apart as well, if there are tensors inside."""
    parts = split(value)
    if parts is not None or isinstance(value, _LEAVES) or not holds_tensors(value):
        return parts
    return _split_stored(value)


def is_registered(cls: type) -> bool:
    """Whether somebody else has told PyTorch how to take the class apart."""
    if cls in (dict, list, tuple) or cls in OURS:
        return False
    return cls in pytree.SUPPORTED_NODES and not is_named_tuple(cls)


def _split_registered(value: Any) -> Parts:
    node = pytree.SUPPORTED_NODES[type(value)]
    children, context = node.flatten_fn(value)
    keys: tuple[Any, ...] = tuple(range(len(children)))
    if node.flatten_with_keys_fn is not None:
        named, _ = node.flatten_with_keys_fn(value)
        keys = tuple(plain_key(key) for key, _ in named)
    elif not isinstance(value, (Mapping, list, tuple)):
        keys = _attributes_holding(value, children) or keys
    return Parts(type(value), keys, tuple(children), context)


def plain_key(key: Any) -> Any:
    """The dict key, index or field name that one of PyTorch's keys stands for."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _attributes_holding(value: Any, children: Iterable[Any]) -> tuple[str, ...] | None:
    """Names of the attributes that the children stand in; ``None`` where one of them is no attribute."""
    state = state_of(value) or {}
    named = dict(zip(with_field_names(type(value), tuple(state)), state.values()))
    names: list[str] = []
    for child in children:
        found = [name for name, held in named.items() if held is child and name not in names]
        if not found:
            return None
        names.append(found[0])
    return tuple(names)


def _split_by_nature(value: Any) -> Parts | None:
    """``split`` for classes that nobody need have registered."""
    cls: Any = type(value)
    if is_named_tuple(cls):
        return Parts(cls, tuple(cls._fields), tuple(value))
    if isinstance(value, Mapping):
        return Parts(cls, tuple(value), tuple(value.values()))
    if isinstance(value, (list, tuple)):
        return Parts(cls, tuple(range(len(value))), tuple(value))
    if declared_fields(cls) is not None:
        return _split_stored(value)
    return None


def _split_stored(value: Any) -> Parts | None:
    state = state_of(value)
    if state is None:
        return None
    attributes = tuple(state)
    return Parts(type(value), with_field_names(type(value), attributes), tuple(state.values()), attributes)


def is_named_tuple(cls: type) -> bool:
    """Whether ``cls`` is a tuple with names."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def join(parts: Parts, children: Iterable[Any]) -> Any:
    """Put a container together again, with other ``children`` than it had; a ``Node`` for a class of its own."""
    cls: Any = parts.cls
    if cls is dict:
        return dict(zip(parts.keys, children))
    if cls is tuple or cls is list:
        return cls(children)
    if is_named_tuple(cls):
        return tuple.__new__(cls, children)
    return Node(cls, parts.keys, tuple(children), parts.context)


def rebuilt(parts: Parts, children: Iterable[Any]) -> Any:
    """A container of the class that ``parts`` had, with other ``children``: tensors, as its class expects them."""
    cls: Any = parts.cls
    if is_registered(cls):
        return pytree.SUPPORTED_NODES[cls].unflatten_fn(list(children), parts.context)
    if issubclass(cls, Mapping) and cls is not dict:
        return cls(dict(zip(parts.keys, children)))
    joined = join(parts, children)
    if type(joined) is not Node:
        return joined
    if issubclass(cls, (list, tuple)):
        return cls(joined.children)
    return made_of(cls, parts.context, joined.children)


def built(tree: Any) -> Any:
    """``tree`` with real containers in place of nodes."""
    parts = split(tree)
    if parts is None:
        return tree
    return rebuilt(parts, [built(child) for child in parts.children])


def dotted(*keys: Any) -> str:
    """``dotted("pair", 0)`` is ``"pair.0"``."""
    return ".".join(str(key) for key in keys if key != "")


def map_leaves(tree: Any, change: Callable[[str, Any], Any], name: str = "") -> Any:
    """A tree of the same containers, each leaf replaced by ``change(dotted name, leaf)``."""
    parts = split(tree)
    if parts is None:
        return change(name, tree)
    return join(parts, [map_leaves(child, change, dotted(name, key)) for key, child in zip(parts.keys, parts.children)])


def leaves(trees: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every leaf of every argument with its dotted name, in order."""
    for name, tree in trees.items():
        yield from _leaves(name, tree)


def _leaves(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    parts = split(tree)
    if parts is None:
        yield name, tree
        return
    for key, child in zip(parts.keys, parts.children):
        yield from _leaves(dotted(name, key), child)
