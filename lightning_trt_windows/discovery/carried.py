"""What an observer has seen, as plain values that a checkpoint carries, and the way back.

A checkpoint that carries the shapes of its training can be exported without data, and a training that is resumed
counts on from where it stopped. The values are lists, dicts, strings and numbers, so that
``torch.load(weights_only=True)`` reads them. Classes of containers are named; they are looked up among the modules
that have been imported, and nothing is imported for their sake.
"""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Mapping
from inspect import Signature
from typing import Any

import torch

from lightning_trt_windows.discovery.observations import Context, Table, Tally
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.state import exported_part, original

__all__ = ["FORMAT", "carried", "observer_of", "restore"]

FORMAT = 1
"""Form of the values; another one is not read."""

MOST = 256
"""Different combinations of shapes that are carried per stage: the most frequent ones, and those that widen a range."""


def carried(observer: Observer) -> dict[str, Any]:
    """What ``observer`` has seen until now.

    Returns:
        Plain values, for ``restore``. Calls that hold what has no plain form are left out, and ``notes`` says so.
    """
    notes: list[str] = []
    tables = []
    for (kind, stage), table in observer.tables.items():
        if not table.total:
            continue
        tallies = []
        for key, tally in table.most_telling(MOST):
            try:
                tallies.append(_plain_tally(key, tally))
            except _NotPlainError as error:
                note = f"calls with {error} are not carried"
                notes += [note] if note not in notes else []
        entry = {"kind": kind, "stage": stage, "total": table.total, "batch": table.batch, "tallies": tallies}
        tables.append(entry)
    sizes = {stage: sorted(found) for stage, found in observer.loader_sizes.items()}
    state = {"format": FORMAT, "method": observer.method, "tables": tables, "loader_sizes": sizes, "notes": notes}
    if observer.parts:
        state["parts"] = {name: carried(part) for name, part in observer.parts.items() if part.calls()}
    return state


def restore(
    observer: Observer, state: Mapping[str, Any], *, home: str = "", signature: Signature | None = None
) -> None:
    """Let ``observer`` go on with what another one has seen.

    Args:
        observer: What it has seen until now is given up.
        state: What ``carried`` gave.
        home: Module in which classes are looked for that a script defined: its name was ``__main__`` then.
        signature: That of the method as it is now.

    Raises:
        ShapeDiscoveryError: ``state`` has another form, is of another method, holds calls that do not fit
            ``signature``, or containers of a class that has not been imported.
    """
    if state.get("format") != FORMAT:
        raise ShapeDiscoveryError(f"shapes in the form {state.get('format')!r} were found, but {FORMAT} is read here")
    if state.get("method") != observer.method:
        raise ShapeDiscoveryError(
            f"the shapes are those of {state.get('method')}, and {observer.method} is to be exported"
        )
    tables: dict[tuple[str, str], Table] = {}
    try:
        for entry in state["tables"]:
            table = tables[entry["kind"], entry["stage"]] = Table()
            table.total, table.batch = int(entry["total"]), int(entry["batch"])
            for tally in entry["tallies"]:
                table.tallies[_decoded(tally["call"], home)] = _tally(tally, home)
            if signature is not None and entry["kind"] == "call":
                for observation in table.observations(entry["stage"]):
                    signature.bind(*observation.args, **observation.kwargs)
        sizes = {str(stage): set(found) for stage, found in state["loader_sizes"].items()}
        names = map(str, state.get("parts") or ())
        parts = {name: Observer(method=name, as_float32=observer.as_float32) for name in names}
        for name, part in parts.items():
            restore(part, state["parts"][name], home=home)
    except ShapeDiscoveryError:
        raise
    # a file can hold anything, and classes may have changed
    except Exception as error:
        raise ShapeDiscoveryError(f"the shapes do not fit: {type(error).__name__}: {error}") from error
    observer.go_on_with(tables, sizes, parts)


def _plain_tally(key: Any, tally: Tally) -> dict[str, Any]:
    values = {
        number: [min(int(low) for low, _ in pairs), max(int(high) for _, high in pairs)]
        for number, pairs in tally.values.items()
    }
    constants = [[_encoded(value) for value in known] for known in tally.constants]
    call = _encoded(key)
    return {"call": call, "first": tally.first, "count": tally.count, "constants": constants, "values": values}


def _tally(plain: Mapping[str, Any], home: str) -> Tally:
    return Tally(
        first=int(plain["first"]),
        count=int(plain["count"]),
        constants=[[_decoded(value, home) for value in known] for known in plain["constants"]],
        values={int(number): [(int(low), int(high))] for number, (low, high) in plain["values"].items()},
    )


def observer_of(state: Mapping[str, Any], module: torch.nn.Module, method: str, *, origin: str) -> Observer:
    """An observer that has seen what ``state`` says of ``method`` of ``module``.

    Args:
        state: What ``carried`` gave.
        module: The module that is exported.
        method: The method, or a submodule.
        origin: Where it was seen, for the reasons of ranges: ``"by the training that wrote a.ckpt"``.

    Returns:
        The observer; where ``state`` does not fit, it has seen nothing and its notes say why.

    Raises:
        ConfigurationError: ``module`` has no such method.
    """
    owner, name = exported_part(original(module), method)
    observer = Observer(method=method)
    try:
        restore(
            observer,
            state,
            home=type(module).__module__,
            signature=inspect.signature(getattr(original(owner), name)),
        )
        observer.origin = origin
    except ShapeDiscoveryError as error:
        observer.notes.append(f"what was seen {origin} does not count: {error}")
    return observer


class _NotPlainError(Exception):
    """Something that only a pickle could hold."""


def _encoded(value: Any) -> Any:
    """A part of a description as lists that begin with what they are, and plain values."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Size):
        return ["size", *value]
    if isinstance(value, torch.device):
        return ["device", str(value)]
    if isinstance(value, torch.dtype):
        return ["dtype", str(value).removeprefix("torch.")]
    if isinstance(value, type):
        return ["class", value.__module__, value.__qualname__]
    if type(value) in (tuple, list, dict):
        parts = [part for item in value.items() for part in item] if isinstance(value, dict) else value
        return [type(value).__name__, *(_encoded(part) for part in parts)]
    if isinstance(value, Context):
        return ["context", _encoded(value.value)]
    raise _NotPlainError(f"a {type(value).__module__}.{type(value).__qualname__}")


def _decoded(value: Any, home: str) -> Any:
    if not isinstance(value, list):
        return value
    what, *parts = value
    if what == "size":
        return torch.Size(parts)
    if what == "dtype":
        return getattr(torch, parts[0])
    if what == "device":
        return torch.device(parts[0])
    if what == "class":
        module, name = parts
        return _class(module, name, home)
    decoded = [_decoded(part, home) for part in parts]
    if what == "context":
        return Context(decoded[0])
    if what == "dict":
        return dict(zip(decoded[::2], decoded[1::2]))
    return tuple(decoded) if what == "tuple" else decoded


def _class(module: str, name: str, home: str) -> Any:
    if module == "builtins":
        return type(None) if name == "NoneType" else getattr(builtins, name)
    for place in (module, home if module == "__main__" else ""):
        found: Any = sys.modules.get(place)
        for part in name.split(".") if found else ():
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found
    raise ShapeDiscoveryError(f"the shapes are inside of a {module}.{name}, and that class has not been imported")
