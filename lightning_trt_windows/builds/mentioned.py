"""Plain values that the code of a module mentions: what a branch at other sizes than those of a run may compare with.

A limit on the length of a sequence decides nothing at the smallest size. So the numbers, flags and strings among the
attributes that ``forward`` and the methods that it mentions name are taken down with their values, and so are those of
configurations (``self.config.limit``, ``self.hparams.limit``). What such code sets itself, a counter of calls, is not.
"""

from __future__ import annotations

import dis
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["mentioned"]

_OURS = ("torch", "lightning", "pytorch_lightning", "torchmetrics")
"""Packages whose modules' attributes do not change in a training."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LONGEST = 64
"""Items of a list or tuple of plain values."""


def mentioned(module: nn.Module, method: str) -> list[str]:
    """Describe the plain attributes that code of ``module`` and its submodules names.

    Args:
        module: The module that is run.
        method: Its method; of submodules it is ``forward``.

    Returns:
        One line for each attribute, the same for the same values.
    """
    lines: list[str] = []
    for path, part in module.named_modules():
        cls = type(part)
        if cls.__module__.partition(".")[0] in _OURS:
            continue
        names = _names(cls, method if part is module else "forward")
        lines += (f"{path}.{line}" for line in _values(part, names))
    return lines


def _values(part: nn.Module, names: frozenset[str]) -> Iterator[str]:
    attributes = vars(part)
    for name in sorted(names):
        value = attributes.get("_hparams") if name == "hparams" else attributes.get(name)
        if name in attributes and _is_plain(value):
            yield f"{name} = {value!r}"
        elif value is not None and not isinstance(value, (nn.Module, Tensor, types.FunctionType, types.MethodType)):
            # a configuration, one level deep
            inner = value if isinstance(value, Mapping) else getattr(value, "__dict__", None)
            if isinstance(inner, Mapping):
                yield from (f"{name}.{key} = {inner[key]!r}" for key in sorted(names) if _is_plain_in(inner, key))


def _is_plain_in(values: Mapping[str, Any], key: str) -> bool:
    return key in values and _is_plain(values[key])


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return len(value) <= _LONGEST and all(type(item) in _PLAIN for item in value)
    return type(value) in _PLAIN


_KNOWN: weakref.WeakKeyDictionary[type, dict[str, frozenset[str]]] = weakref.WeakKeyDictionary()
"""What was found for a class, by method."""


def _names(cls: type, method: str) -> frozenset[str]:
    known = _KNOWN.setdefault(cls, {})
    if method not in known:
        known[method] = _names_in(cls, method)
    return known[method]


def _names_in(cls: type, method: str) -> frozenset[str]:
    """Names of attributes that ``method`` reads and does not set, and so the methods and properties that it names."""
    read: set[str] = set()
    written: set[str] = set()
    pending, seen = [method], {method}
    while pending:
        code = _code(getattr(cls, pending.pop(), None))
        if code is None:
            continue
        for instruction in _instructions(code):
            if instruction.opname == "STORE_ATTR":
                written.add(instruction.argval)
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_CONST") and type(instruction.argval) is str:
                read.add(instruction.argval)
        new = [name for name in read if name not in seen and _code(getattr(cls, name, None)) is not None]
        seen.update(new)
        pending += new
    return frozenset(read - written - {"training"})


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)


def _code(value: Any) -> types.CodeType | None:
    """The code of a method of the user's, or of a property."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__wrapped__", value)  # what decorators of functools leave
    if getattr(value, "__module__", "").partition(".")[0] in _OURS:
        return None
    code = getattr(value, "__code__", None)
    return code if isinstance(code, types.CodeType) else None
