"""TensorRT's builder and its configuration, recording: a name or an argument that the real bindings lack is an error.

Every attribute is looked up in the real class, and every call is checked against the signature that its documentation
begins with, which pybind11 writes from the C++ types.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["Recorder"]

_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "SupportsInt": (int,),
    "bool": (bool,),
    "str": (str,),
    "float": (int, float),
    "buffer": (bytes, memoryview),
    "Buffer": (bytes, memoryview),
}


class Recorder:
    """An instance of ``cls``, one of the bindings' classes, that only notes what is asked of it.

    Args:
        bindings: The module.
        cls: The class, or its name.
        log: Where each call and each assignment is noted, as text.
        results: What a method returns, by its name; otherwise what its return type suggests.
    """

    def __init__(self, bindings: Any, cls: Any, log: list[str], **results: Any) -> None:
        vars(self).update(
            _bindings=bindings,
            _class=getattr(bindings, cls) if isinstance(cls, str) else cls,
            _log=log,
            _results=results,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        found = getattr(self._class, name)
        assert isinstance(found, property) and found.fset is not None, f"{self._class.__name__}.{name} cannot be set"
        wanted = re.search(r"arg0: ([^)]*)\)", found.fset.__doc__ or "")
        if wanted:
            self._check(name, wanted[1], value)
        self._log.append(f"{name} = {_shown(value)}")

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._class, name)
        assert callable(method), f"{self._class.__name__}.{name} is no method"
        # of several, the first, which has the fewest arguments
        signature = re.search(rf"{name}\(self: [^,)]*(?:, )?(.*)\) -> (.*)", method.__doc__)
        assert signature, f"{self._class.__name__}.{name}: {method.__doc__}"
        parameters = [part.partition(": ") for part in signature[1].split(", ") if part]

        def call(*args: Any, **kwargs: Any) -> Any:
            names = [parameter[0] for parameter in parameters]
            assert len(args) <= len(names) and set(kwargs) <= set(names[len(args) :]), f"{name}{args}{kwargs}: {names}"
            given = {**dict(zip(names, args)), **kwargs}
            for parameter, _, kind in parameters:
                kind, _, default = kind.partition(" = ")
                assert parameter in given or default, f"{name} wants {parameter}"
                if parameter in given:
                    self._check(f"{name}.{parameter}", kind, given[parameter])
            self._log.append(f"{name}({', '.join(map(_shown, given.values()))})")
            return self._results[name] if name in self._results else self._result(signature[2])

        return call

    def _check(self, where: str, kind: str, value: Any) -> None:
        kind = kind.rpartition(".")[2]
        if kind in _PLAIN:
            assert isinstance(value, _PLAIN[kind]), f"{where} wants {kind}, got {value!r}"
        elif hasattr(self._bindings, kind):
            cls = getattr(self._bindings, kind)
            mine = isinstance(value, Recorder) and value._class is cls
            assert mine or isinstance(value, cls), f"{where} wants {kind}, got {value!r}"

    def _result(self, kind: str) -> Any:
        kind = kind.rpartition(".")[2]
        if kind == "bool":
            return True
        return Recorder(self._bindings, kind, self._log) if hasattr(self._bindings, kind) else None


def _shown(value: Any) -> str:
    if isinstance(value, (bytes, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, Recorder):
        return value._class.__name__
    return str(getattr(value, "name", value))
