"""Values that differ from call to call and cannot be inputs: fine where nothing reads them, and noticed where it does.

A batch may carry its size, file names or ids along. Baking one of them into an artifact would be wrong if ``forward``
read it, and asking for it would be needless if not. So the module is traced with a stand-in that can be handed on, and
that raises whatever else is done with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

from lightning_trt_windows.modules.containers import Leaf

__all__ = ["ReadError", "Varying", "can_be_told", "unread"]


@dataclass(frozen=True)
class Varying(Leaf):
    """In a tree of inputs: a value that must not be read."""

    name: str
    """Dotted name."""
    found: str
    """What it was, for messages: ``16, 12, ...`` or ``a numpy.ndarray``."""
    way_on: str
    """What to do where it is read."""


class ReadError(Exception):
    """``forward`` reads a value that differs from call to call."""


def can_be_told(value: Any) -> bool:
    """Whether a stand-in for ``value`` notices each use: not of what is compared by identity, as ``None`` is."""
    return value is not None and not isinstance(value, (bool, Enum))


def unread(varying: Varying, of_class: type | None = None) -> Any:
    """A stand-in for the value, which raises ``ReadError`` when it is read.

    Args:
        varying: The value.
        of_class: What ``isinstance`` is told, where that is known: modules ask what is assigned to them.
    """
    return _Unread(varying, of_class)


class _Unread:
    """Can be passed on, stored and compared by identity. All else is reading it."""

    __slots__ = ("_of_class", "_varying")

    def __init__(self, varying: Varying, of_class: type | None = None) -> None:
        object.__setattr__(self, "_varying", varying)
        object.__setattr__(self, "_of_class", of_class)

    def __getattribute__(self, name: str) -> Any:
        # also what isinstance asks for
        if name == "__class__" and (told := object.__getattribute__(self, "_of_class")) is not None:
            return told
        if name == "__class__" or not (name.startswith("__") and name.endswith("__")):
            _read(self)
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_varying').name}, which varies>"


def _read(value: Any) -> NoReturn:
    varying = object.__getattribute__(value, "_varying")
    raise ReadError(
        f"forward reads {varying.name}, which is not a tensor and varies between calls ({varying.found}): it would be "
        f"baked into the artifact. {varying.way_on}"
    )


_SPECIAL = """
bool int float complex index len iter next contains getitem setitem delitem call hash str format
bytes eq ne lt le gt ge add sub mul truediv floordiv mod pow matmul and or xor lshift rshift neg pos
abs invert radd rsub rmul rtruediv rfloordiv rmod rpow rmatmul rand ror rxor rlshift rrshift iadd
isub imul itruediv ifloordiv round trunc floor ceil divmod rdivmod enter exit await aiter array
fspath torch_function setattr delattr reversed
"""
"""What Python calls for operators and built-in functions, without its underscores."""


def _raising(name: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        _read(self)

    method.__name__ = f"__{name}__"
    return method


for _name in _SPECIAL.split():
    setattr(_Unread, f"__{_name}__", _raising(_name))
