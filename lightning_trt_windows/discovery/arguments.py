"""From what was seen to arguments by name: calls are bound, batches are mapped."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter, Signature
from typing import Any, NamedTuple

import torch

from lightning_trt_windows.discovery.observations import SeenConstant, SeenTensor
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.containers import Parts, built, split

__all__ = ["Mapped", "call_arguments", "described", "left_out", "map_batch", "required"]

LOSS_ONLY = frozenset(
    {"label", "labels", "target", "targets", "start_positions", "end_positions", "next_sentence_label"}
)
"""Optional arguments of these names are for computing a loss; giving them in training does not make them inputs."""
TARGETS = LOSS_ONLY | {"y"}
"""Entries of a batch that are no input where something else is. A call that gives ``y`` may mean a class, so that a
batch's ``y`` is not given to an optional argument."""
STEP_NUMBERS = frozenset({"batch_idx", "dataloader_idx"})


class Mapped(NamedTuple):
    """A batch as arguments."""

    arguments: Mapping[str, Any]
    how: str
    """How they were found, for the manifest: "the batch's elements in order are x and mask"."""


def required(signature: Signature) -> list[str]:
    """Arguments without a default."""
    return [p.name for p in _named(signature) if p.default is Parameter.empty]


def _named(signature: Signature) -> list[Parameter]:
    variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [parameter for parameter in signature.parameters.values() if parameter.kind not in variadic]


def _variadic(signature: Signature, kind: Any) -> str | None:
    return next((p.name for p in signature.parameters.values() if p.kind is kind), None)


def described(signature: Signature, method: str) -> str:
    """``forward(x, mask=None)``: the signature without annotations."""
    bare = [p.replace(annotation=Parameter.empty) for p in signature.parameters.values()]
    return f"{method}{Signature(bare)}"


def map_batch(signature: Signature, batch: Any, method: str) -> Mapped:
    """Guess which part of ``batch`` the method would be called with, from the names and number of its arguments.

    Returns:
        The arguments, and how they were found.

    Raises:
        ShapeDiscoveryError: The batch does not fit the signature.
    """
    named = _named(signature)
    needed = [name for name in required(signature) if name not in STEP_NUMBERS]
    parts = split(batch)
    numbers = {p.name: SeenConstant((0,)) for p in named if p.name in STEP_NUMBERS and p.default is Parameter.empty}
    if not named:
        return _variadic_only(signature, batch, parts, method)
    first = named[0]
    wants_one = parts is not None and len(needed) <= 1 and _asks_for_a_tensor(first)
    if parts is None or (first.name == "batch" and not wants_one) or (len(needed) <= 1 and _asks_for(first, parts.cls)):
        return _complete(Mapped({first.name: batch, **numbers}, f"the whole batch is {first.name}"), signature, method)
    if all(isinstance(key, str) for key in parts.keys):
        mapped = _by_name(named, needed, parts) or (_first_tensor(first, parts) if wants_one else None)
        if mapped is not None:
            return mapped
        if not issubclass(parts.cls, tuple) and len(needed) <= 1:
            return Mapped({(needed or [first.name])[0]: batch}, f"the whole batch is {(needed or [first.name])[0]}")
    if issubclass(parts.cls, (list, tuple)) and parts.children:
        names = needed or [first.name]
        arguments = dict(zip(names, parts.children))
        elements = "first element" if len(arguments) == 1 else "first elements in order"
        how = f"the batch's {elements} {'is' if len(arguments) == 1 else 'are'} {', '.join(arguments)}"
        return _complete(Mapped(arguments, how), signature, method)
    raise ShapeDiscoveryError(
        f"a batch with {_listed(parts)} does not fit {described(signature, method)}: name its entries like the "
        "arguments, or give the inputs explicitly"
    )


def left_out(signature: Signature, arguments: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """``arguments`` without those that only a loss needs, where the method can do without them.

    Args:
        signature: Of the method.
        arguments: What it was given.
        kept: Names of targets that stay; dotted for entries of ``**kwargs``.

    Returns:
        The arguments that remain.
    """
    optional = {p.name for p in _named(signature) if p.default is not Parameter.empty} & LOSS_ONLY
    rest = _variadic(signature, Parameter.VAR_KEYWORD)
    remaining = {name: tree for name, tree in arguments.items() if name not in optional or name in kept}
    if rest in remaining and isinstance(remaining[rest], dict):
        entries = remaining[rest].items()
        inside = {k: v for k, v in entries if k not in LOSS_ONLY or k in kept or f"{rest}.{k}" in kept}
        if inside:  # whoever takes nothing but targets takes them for what they are
            remaining[rest] = inside
    return remaining


def call_arguments(
    function: Callable[..., Any] | Signature, arguments: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments that give ``function`` its ``arguments`` by name, with real containers."""
    signature = function if isinstance(function, Signature) else inspect.signature(function)
    bound = signature.bind_partial()
    bound.arguments.update({name: built(arguments[name]) for name in signature.parameters if name in arguments})
    return bound.args, bound.kwargs


def _by_name(named: list[Parameter], needed: list[str], parts: Parts) -> Mapped | None:
    entries = dict(zip(parts.keys, parts.children))
    taken = {
        p.name: entries[p.name]
        for p in named
        if p.name in entries and (p.default is Parameter.empty or p.name not in TARGETS or p.name in LOSS_ONLY)
    }
    if not taken or not set(needed) <= set(taken):
        return None
    return Mapped(taken, f"the batch's entries of the same names are {', '.join(taken)}")


def _first_tensor(parameter: Parameter, parts: Parts) -> Mapped | None:
    """The batch's first tensor that is no target, for the one argument that is annotated as a tensor."""
    for key, child in zip(parts.keys, parts.children):
        if isinstance(child, (SeenTensor, torch.Tensor)) and key not in TARGETS:
            return Mapped({parameter.name: child}, f"the batch's first tensor, {key}, is {parameter.name}")
    return None


def _variadic_only(signature: Signature, batch: Any, parts: Parts | None, method: str) -> Mapped:
    keyword = _variadic(signature, Parameter.VAR_KEYWORD)
    positional = _variadic(signature, Parameter.VAR_POSITIONAL)
    if keyword and parts is not None and all(isinstance(key, str) for key in parts.keys) and parts.keys:
        return Mapped({keyword: dict(zip(parts.keys, parts.children))}, f"the batch's entries are **{keyword}")
    if positional and parts is None:
        return Mapped({positional: (batch,)}, f"the whole batch is the first of *{positional}")
    raise ShapeDiscoveryError(
        f"{described(signature, method)} does not say what it takes of a batch; give the inputs explicitly"
    )


def _asks_for(parameter: Parameter, cls: type) -> bool:
    """Whether a parameter is annotated with the batch's own class, one it is derived from, or a container of its kind.

    Annotations may be strings, optional, or one of several classes.
    """
    annotation = parameter.annotation
    if annotation is Parameter.empty:
        return False
    if isinstance(annotation, str):
        outermost = re.sub(r"(?<!Optional)(?<!Union)\[.*", "", annotation)
        names = {base.__name__ for base in cls.__mro__[:-1]}
        names |= {"Mapping"} if issubclass(cls, Mapping) else {"Sequence"} if issubclass(cls, (list, tuple)) else set()
        aliases = {name.capitalize() for name in names & {"dict", "list", "tuple"}}
        return bool(set(re.findall(r"\w+", outermost)) & (names | aliases))
    choices = typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)
    classes = [typing.get_origin(choice) or choice for choice in choices]
    return any(isinstance(choice, type) and choice is not object and issubclass(cls, choice) for choice in classes)


def _asks_for_a_tensor(parameter: Parameter) -> bool:
    """Whether a parameter is annotated with ``Tensor``, which may be a string."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        return annotation.strip("'\"").rpartition(".")[2] == "Tensor"
    return isinstance(annotation, type) and issubclass(annotation, torch.Tensor)


_UNIONS = (typing.Union, types.UnionType)


def _complete(mapped: Mapped, signature: Signature, method: str) -> Mapped:
    missing = [name for name in required(signature) if name not in mapped.arguments]
    if missing:
        raise ShapeDiscoveryError(
            f"{described(signature, method)} also needs {', '.join(missing)}, and the batch has nothing left for it"
        )
    return mapped


def _listed(parts: Parts) -> str:
    if not parts.keys:
        return "nothing in it"
    if all(isinstance(key, str) for key in parts.keys):
        return "the entries " + ", ".join(parts.keys)
    return f"{len(parts.keys)} elements"
