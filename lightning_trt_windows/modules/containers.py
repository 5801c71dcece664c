"""Nested arguments: what counts as a container, how to take one apart and to put one together again.

A *tree* is a leaf or a container of trees. Containers are dicts, lists, tuples and NamedTuples, dataclasses, attrs
classes, mappings of other classes, and whatever is registered with ``torch.utils._pytree`` (the outputs of
transformers, for one). Everything else is a leaf: tensors, ``InputSpec``, flags,
numbers, strings, and objects of unknown classes.

A leaf is called by its *dotted name*, the argument followed by keys, indices and field names: ``x``, ``batch.image``,
``pair.0``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec

__all__ = [
    "Leaf",
    "Parts",
    "dotted",
    "join",
    "leaves",
    "map_leaves",
    "register_containers",
    "registration_code",
    "split",
]


class Leaf:
    """Base of values that are leaves although they look like containers."""


_LEAVES = (torch.Tensor, InputSpec, DimRange, Leaf, str, bytes, int, float, type(None), type)


class Parts(NamedTuple):
    """One container taken apart; ``join`` is the way back."""

    cls: type
    """Class of the container."""
    keys: tuple[Any, ...]
    """Dict keys, sequence indices or field names, in order."""
    children: tuple[Any, ...]
    """One tree for each key."""
    context: Any = None
    """What a registered class needs besides its children; nothing for the others."""


def split(value: Any) -> Parts | None:
    """Take the outermost container of ``value`` apart; ``None`` where ``value`` is a leaf."""
    cls = type(value)
    if cls is dict:
        return Parts(dict, tuple(value), tuple(value.values()))
    if cls is tuple or cls is list:
        return Parts(cls, tuple(range(len(value))), tuple(value))
    if isinstance(value, _LEAVES):
        return None
    if cls in pytree.SUPPORTED_NODES and not _is_named_tuple(cls):
        return _split_registered(value)
    return _split_by_nature(value)


def _split_registered(value: Any) -> Parts:
    node = pytree.SUPPORTED_NODES[type(value)]
    children, context = node.flatten_fn(value)
    keys: tuple[Any, ...] = tuple(range(len(children)))
    if node.flatten_with_keys_fn is not None:
        named, _ = node.flatten_with_keys_fn(value)
        keys = tuple(_plain_key(key) for key, _ in named)
    return Parts(type(value), keys, tuple(children), context)


def _plain_key(key: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _split_by_nature(value: Any) -> Parts | None:
    """``split`` for classes that nobody need have registered."""
    cls = type(value)
    names = _field_names(cls)
    if names is not None:
        return Parts(cls, names, tuple(getattr(value, name, None) for name in names))
    if isinstance(value, Mapping):
        return Parts(cls, tuple(value), tuple(value.values()))
    if isinstance(value, (list, tuple)):
        return Parts(cls, tuple(range(len(value))), tuple(value))
    return None


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _field_names(cls: type) -> tuple[str, ...] | None:
    """Names of the fields of a NamedTuple, dataclass or attrs class; ``None`` for other classes."""
    if _is_named_tuple(cls):
        return tuple(cls._fields)  # type: ignore[attr-defined]  # what makes it a NamedTuple
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(field.name for field in cls.__attrs_attrs__)
    return None


def join(parts: Parts, children: Iterable[Any]) -> Any:
    """Put a container together again, with other ``children`` than it had.

    Constructors of dataclasses and attrs classes are not run: they may check or convert what are tensors to them.
    """
    cls = parts.cls
    if cls is dict:
        return dict(zip(parts.keys, children))
    if cls is tuple or cls is list:
        return cls(children)
    if cls in pytree.SUPPORTED_NODES and (_field_names(cls) is None or issubclass(cls, Mapping)):
        return pytree.SUPPORTED_NODES[cls].unflatten_fn(children, parts.context)
    return _join_by_nature(parts, children)


def _join_by_nature(parts: Parts, children: Iterable[Any]) -> Any:
    cls: Any = parts.cls
    names = _field_names(cls)
    if _is_named_tuple(cls):
        return cls(*children)
    if names is not None:
        value: Any = object.__new__(cls)
        given = dict(zip(parts.keys, children))
        # a registered dataclass may leave out fields; a default stands on the class
        for name in names:
            if name in given or not hasattr(cls, name):
                object.__setattr__(value, name, given.get(name))
        return value
    if issubclass(cls, Mapping):
        return cls(dict(zip(parts.keys, children)))
    return cls(children)


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


def register_containers(tree: Any) -> tuple[str, ...]:
    """Make every container class inside ``tree`` known to ``torch.export``, and savable by it.

    Dataclasses, attrs classes, NamedTuples and mappings that PyTorch does not know are registered; PyTorch's registry
    is global and knows no way back, so this is done when a capture starts and not before.

    Returns:
        Names of the classes that were registered now, for the log.
    """
    parts = split(tree)
    if parts is None:
        return ()
    registered = () if parts.cls in pytree.SUPPORTED_NODES else (_register(parts.cls),)
    return registered + tuple(name for child in parts.children for name in register_containers(child))


def _register(cls: type) -> str:
    name = f"{cls.__module__}.{cls.__qualname__}"
    if _is_named_tuple(cls):
        # a NamedTuple is a node by nature; only registered ones can be saved
        pytree._register_namedtuple(cls, serialized_type_name=name)
        return name
    if dataclasses.is_dataclass(cls):
        torch.export.register_dataclass(cls, serialized_type_name=name)
        return name

    def flatten(value: Any) -> tuple[list[Any], Any]:
        parts = _split_by_nature(value)
        assert parts is not None, "only containers are registered"
        return list(parts.children), list(parts.keys)

    def unflatten(children: Iterable[Any], keys: Any) -> Any:
        return _join_by_nature(Parts(cls, tuple(keys), ()), children)

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], Any]:
        children, keys = flatten(value)
        return [(pytree.MappingKey(key), child) for key, child in zip(keys, children)], keys

    pytree.register_pytree_node(
        cls, flatten, unflatten, serialized_type_name=name, flatten_with_keys_fn=flatten_with_keys
    )
    return name


def registration_code(cls: type) -> str:
    """The registration a user has to write for a class that we cannot take apart."""
    name = cls.__name__
    return (
        "import torch.utils._pytree as pytree\n"
        "pytree.register_pytree_node(\n"
        f"    {name},\n"
        f"    lambda value: ([value.first, value.second], None),  # the tensors inside a {name}\n"
        f"    lambda tensors, _: {name}(*tensors),               # and how to make one of them\n"
        f'    serialized_type_name="{cls.__module__}.{cls.__qualname__}",\n'
        ")"
    )
