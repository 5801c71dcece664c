"""Classes of containers made known to ``torch.export``, so that what it traces and saves may hold them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator
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
    "registered_meanwhile",
    "registration_code",
]

_REGISTER: dict[type, Callable[[], None]] = {}
"""What has been registered within blocks, and is taken back after each: how to do it again. Programs that were captured
in one block are read and built in later ones."""
_added: list[tuple[type, str, Any, type | None]] | None = None
"""Within a block: each class, its name, its node, and which class PyTorch knew by that name before."""


@contextlib.contextmanager
def registered_meanwhile() -> Iterator[None]:
    """Take back after the block what is registered in it. Blocks may be nested; one thread at a time may be in one.

    A class that stays registered is one that its own author cannot register any more, and of which ``tree_leaves``
    finds the parts where it found the object. What somebody else has registered meanwhile stays.
    """
    global _added
    if _added is not None:
        yield
        return
    _added = []
    try:
        for cls, register in _REGISTER.items():
            if cls not in pytree.SUPPORTED_NODES:  # otherwise its author has registered it
                register()
        yield
    finally:
        added, _added = _added, None
        for cls, name, node, before in reversed(added):
            _take_back(cls, name, node, before)


def _take_back(cls: type, name: str, node: Any, before: type | None) -> None:
    # PyTorch has no function for it
    with getattr(pytree, "_NODE_REGISTRY_LOCK", contextlib.nullcontext()):
        if pytree.SUPPORTED_NODES.get(cls) is not node:
            return
        OURS.discard(cls)
        del pytree.SUPPORTED_NODES[cls]
        pytree.SUPPORTED_SERIALIZED_TYPES.pop(cls, None)
        if pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name) is cls:
            del pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[name]
            if before is not None:
                pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE[name] = before
    # the same once more in C++, or noted for when that is imported
    pending: list[Any] = getattr(pytree, "_cxx_pytree_pending_imports", [])
    pending[:] = [item for item in pending if item[0][0] is not cls]
    if getattr(pytree, "_cxx_pytree_imported", False):
        with contextlib.suppress(ValueError):  # NamedTuples are never registered there
            importlib.import_module("optree").unregister_pytree_node(cls, namespace="torch")


def register_containers(tree: Any) -> tuple[str, ...]:
    """Make every container class inside ``tree`` known to ``torch.export``, and savable by it.

    Dataclasses, attrs classes, pydantic models, NamedTuples and mappings that PyTorch does not know are registered;
    PyTorch's registry is global, so this is done when a capture starts and not before: see ``registered_meanwhile``.

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
        _do(cls, name, lambda: pytree._register_namedtuple(cls, serialized_type_name=name))
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

    def register() -> None:
        OURS.add(cls)
        pytree.register_pytree_node(
            cls, flatten, unflatten, serialized_type_name=name, flatten_with_keys_fn=flatten_with_keys
        )

    _do(cls, name, register)
    return name


def _do(cls: type, name: str, register: Callable[[], None]) -> None:
    """Register a class, and note what has to be taken back."""

    def noted() -> None:
        before = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name)
        register()
        if _added is not None:
            _added.append((cls, name, pytree.SUPPORTED_NODES[cls], before))

    noted()
    if _added is not None:
        _REGISTER.pop(cls, None)  # the latest of a name comes last, and is the one that is found
        _REGISTER[cls] = noted


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
