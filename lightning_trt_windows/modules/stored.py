"""Objects of classes that people write, taken apart by what they hold, and made again without running their code.

Constructors, descriptors, properties and ``__post_init__`` check, convert and compute: they expect tensors, and none of
them has to know of us. So what counts is the state of an instance: its ``__dict__`` and its slots.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["declared_fields", "holds_tensors", "made_of", "state_of", "with_field_names"]

_HEAP_TYPE = 1 << 9
"""Bit of ``type.__flags__``: made by a class statement."""
_NEVER = (
    torch.nn.Module,
    torch.Tensor,
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    enum.Enum,
    BaseException,
)
_DEEPEST = 4
_LONGEST = 8
"""Items of a list that are looked at for tensors."""


def declared_fields(cls: type) -> tuple[str, ...] | None:
    """Names of the fields of a dataclass, an attrs class or a pydantic model; ``None`` for other classes."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if isinstance(attributes := getattr(cls, "__attrs_attrs__", None), tuple):
        return tuple(attribute.name for attribute in attributes)
    fields = getattr(cls, "__pydantic_fields__", None)
    return tuple(fields) if isinstance(fields, dict) else None


def state_of(value: Any) -> dict[str, Any] | None:
    """What ``value`` holds, by attribute; ``None`` where it could not be made again from that.

    Fields come first, in the order of the class; what ``functools.cached_property`` has computed is left out.
    """
    cls: Any = type(value)
    if issubclass(cls, _NEVER) or not _is_of_python(cls):
        return None
    state: dict[str, Any] = {}
    for name, descriptor in _slots(cls).items():
        with contextlib.suppress(AttributeError):  # it was never set
            state[name] = descriptor.__get__(value, cls)
    with contextlib.suppress(AttributeError):  # it has slots only
        state.update(object.__getattribute__(value, "__dict__"))
    for name in [n for n in state if isinstance(_on_class(cls, n), functools.cached_property)]:
        del state[name]
    fields = declared_fields(cls) or ()
    first = [name for field in fields for name in (field, f"_{field}") if name in state]
    return {name: state[name] for name in (*first, *(name for name in state if name not in first))}


def made_of(cls: Any, attributes: Iterable[str], values: Iterable[Any]) -> Any:
    """An instance of ``cls`` with these attributes, of which no code has run."""
    made = object.__new__(cls)
    slots = _slots(cls)
    for name, value in zip(attributes, values):
        if name in slots:
            slots[name].__set__(made, value)
        else:
            object.__getattribute__(made, "__dict__")[name] = value
    return made


def with_field_names(cls: type, attributes: Sequence[str]) -> tuple[str, ...]:
    """``attributes`` under the names of the fields that they stand for: a descriptor keeps ``image`` in ``_image``."""
    fields = declared_fields(cls) or ()

    def named(name: str) -> str:
        stands_for_field = name[:1] == "_" and name not in fields and name[1:] in fields and name[1:] not in attributes
        return name[1:] if stands_for_field else name

    return tuple(map(named, attributes))


def holds_tensors(value: Any, depth: int = 0, above: tuple[int, ...] = ()) -> bool:
    """Whether there is a tensor in ``value``, not too deep inside."""
    cls = type(value)
    if issubclass(cls, torch.Tensor):
        return True
    if depth > _DEEPEST or id(value) in above:
        return False
    inside: Iterable[Any] = ()
    if cls is list or cls is tuple:
        inside = value[:_LONGEST]
    elif issubclass(cls, Mapping):
        inside = value.values()
    elif not issubclass(cls, (str, bytes, int, float, type(None), list, tuple)):
        inside = (state_of(value) or {}).values()
    return any(holds_tensors(item, depth + 1, (*above, id(value))) for item in inside)


@functools.cache
def _is_of_python(cls: Any) -> bool:
    """Whether instances hold nothing but attributes: no class of an extension is among its bases."""
    base: Any = cls
    while base.__flags__ & _HEAP_TYPE:
        if base.__module__ in ("builtins", "torch"):
            return False
        base = base.__base__
    return base is object and cls is not object


@functools.cache
def _slots(cls: Any) -> dict[str, Any]:
    return {
        name: member
        for base in reversed(cls.__mro__)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
    }


def _on_class(cls: type, name: str) -> Any:
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
