"""From what was seen to arguments by name: calls are bound, batches are mapped."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Any, NamedTuple

from lightning_trt_windows.discovery.observations import SeenConstant
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.containers import Parts, split

__all__ = ["Mapped", "described", "map_batch", "required"]

TARGETS = frozenset({"label", "labels", "target", "targets", "y"})
"""Optional arguments of these names are for computing a loss; a batch's entry does not make them inputs."""
STEP_NUMBERS = frozenset({"batch_idx", "dataloader_idx"})


class Mapped(NamedTuple):
    """A batch as arguments."""

    arguments: Mapping[str, Any]
    how: str
    """For the manifest: "the batch's elements in order are x and mask"."""


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
    if parts is None or first.name == "batch" or (len(needed) <= 1 and _asks_for(first, parts.cls)):
        return _complete(Mapped({first.name: batch, **numbers}, f"the whole batch is {first.name}"), signature, method)
    if all(isinstance(key, str) for key in parts.keys):
        mapped = _by_name(named, needed, parts)
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


def _by_name(named: list[Parameter], needed: list[str], parts: Parts) -> Mapped | None:
    entries = dict(zip(parts.keys, parts.children))
    taken = {
        p.name: entries[p.name]
        for p in named
        if p.name in entries and (p.default is Parameter.empty or p.name not in TARGETS)
    }
    if not taken or not set(needed) <= set(taken):
        return None
    return Mapped(taken, f"the batch's entries of the same names are {', '.join(taken)}")


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
    """Whether a parameter is annotated with the batch's own class; plain containers say nothing."""
    if cls in (dict, list, tuple):
        return False
    return parameter.annotation in (cls, cls.__name__, cls.__qualname__)


def _complete(mapped: Mapped, signature: Signature, method: str) -> Mapped:
    missing = [name for name in required(signature) if name not in mapped.arguments]
    if missing:
        raise ShapeDiscoveryError(
            f"{described(signature, method)} wants {', '.join(missing)} too, and the batch has nothing left for it"
        )
    return mapped


def _listed(parts: Parts) -> str:
    if not parts.keys:
        return "nothing in it"
    if all(isinstance(key, str) for key in parts.keys):
        return "the entries " + ", ".join(parts.keys)
    return f"{len(parts.keys)} elements"
