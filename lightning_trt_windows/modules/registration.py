"""Classes of containers made known to ``torch.export``, so that what it traces and saves may hold them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils import _pytree as pytree

from lightning_trt_windows.modules.containers import OURS, Parts, dotted, is_named_tuple, plain_key, rebuilt, split

__all__ = [
    "can_be_saved",
    "classes_in",
    "keys_of",
    "leaf_names",
    "register_containers",
    "register_named_tuples",
    "registration_code",
]


def register_containers(tree: Any) -> tuple[str, ...]:
    """Make every container class inside ``tree`` known to ``torch.export``, and savable by it.

    Dataclasses, attrs classes, pydantic models, NamedTuples and mappings that PyTorch does not know are registered;
    PyTorch's registry is global and knows no way back, so this is done when a capture starts and not before.

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
    if is_named_tuple(cls):
        # a NamedTuple is a node by nature; only registered ones can be saved
        pytree._register_namedtuple(cls, serialized_type_name=name)
        return name
    attributes: dict[Any, Any] = {}

    # the context is what a reader without the class makes a dict with: names, and names of what is None
    def flatten(value: Any) -> tuple[list[Any], Any]:
        parts = split(value)
        assert parts is not None, "only containers are registered"
        attributes.update(zip(parts.keys, parts.context or parts.keys))
        there = {key: child for key, child in zip(parts.keys, parts.children) if child is not None}
        return list(there.values()), [list(there), [key for key in parts.keys if key not in there]]

    def unflatten(children: Iterable[Any], context: Any) -> Any:
        names, absent = context
        known = {**dict(zip(names, children)), **dict.fromkeys(absent)}
        keys = tuple(known)
        return rebuilt(Parts(cls, keys, (), tuple(attributes.get(key, key) for key in keys)), known.values())

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], Any]:
        children, context = flatten(value)
        return [(pytree.MappingKey(key), child) for key, child in zip(context[0], children)], context

    OURS.add(cls)
    pytree.register_pytree_node(
        cls, flatten, unflatten, serialized_type_name=name, flatten_with_keys_fn=flatten_with_keys
    )
    return name


def can_be_saved(cls: type) -> bool:
    """Whether ``torch.export`` traces and saves values of a registered class: that takes keys and a name."""
    node, known = pytree.SUPPORTED_NODES.get(cls), pytree.SUPPORTED_SERIALIZED_TYPES.get(cls)
    named = known is not None and known.serialized_type_name != pytree.NO_SERIALIZED_TYPE_NAME_FOUND
    return node is not None and node.flatten_with_keys_fn is not None and named


def register_named_tuples(spec: pytree.TreeSpec) -> None:
    """Make the NamedTuples of a tree savable: they can be traced without that."""
    for cls in classes_in(spec):
        if is_named_tuple(cls) and cls not in pytree.SUPPORTED_NODES:
            _register(cls)


def keys_of(spec: pytree.TreeSpec) -> tuple[Any, ...]:
    """Keys, indices or field names of the children of a container, from its description alone."""
    count, context, cls = len(_children(spec)), spec.context, _class_of(spec)
    if cls is dict:
        return tuple(context)
    if is_named_tuple(cls):
        return tuple(cls._fields)
    node = pytree.SUPPORTED_NODES.get(cls)
    if node is not None and node.flatten_with_keys_fn is not None:
        # a class may insist on tensors, and many leave out what is None
        with contextlib.suppress(Exception):
            named, _ = node.flatten_with_keys_fn(node.unflatten_fn([0] * count, context))
            if len(named) == count:
                return tuple(plain_key(key) for key, _ in named)
    names = context[0] if isinstance(context, list) and len(context) == 2 and isinstance(context[0], list) else context
    fits = isinstance(names, (list, tuple)) and len(names) == count
    return tuple(names) if fits else tuple(range(count))


def leaf_names(spec: pytree.TreeSpec, name: str) -> Iterator[str]:
    """Dotted name of every leaf of a tree that is described by ``spec``."""
    if spec.is_leaf():
        yield name
        return
    for key, child in zip(keys_of(spec), _children(spec), strict=True):
        yield from leaf_names(child, dotted(name, key))


def classes_in(spec: pytree.TreeSpec) -> set[Any]:
    """Classes of the containers in a tree that is described by ``spec``."""
    if spec.is_leaf():
        return set()
    return {_class_of(spec)}.union(*(classes_in(child) for child in _children(spec)))


def _class_of(spec: pytree.TreeSpec) -> Any:
    # of a NamedTuple the type is a function, and the class is the context
    return spec.context if isinstance(spec.context, type) and not isinstance(spec.type, type) else spec.type


def _children(spec: pytree.TreeSpec) -> list[pytree.TreeSpec]:
    # children_specs is the older name of the same
    return list(spec.children() if hasattr(spec, "children") else spec.children_specs)


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
