"""One function of the package after the other raises: which functions a run reaches, and how each is made to fail.

A function keeps its identity and gets other code, so that every module that has imported it, every class that has it
as a method or a property, and every decorator around it meets the fault.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning_trt_windows

__all__ = ["FAULTS", "ForeignError", "faulty", "reached"]

PACKAGE = str(Path(lightning_trt_windows.__file__).parent)


class ForeignError(RuntimeError):
    """An exception of a library that nobody here knows."""


FAULTS: tuple[type[Exception], ...] = (Exception, OSError, MemoryError, ForeignError)
"""What is raised in place of a function's work."""


def reached(run: Callable[[], Any]) -> list[types.FunctionType]:
    """The functions of the package that are called, in any thread, while ``run`` runs; in the order of first calls.

    Functions that are made anew in each call of another one (closures, lambdas) are left out: nothing holds them.
    """
    seen: dict[types.CodeType, None] = {}

    def note(frame: types.FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            seen.setdefault(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as its documentation says
    holders = {f.__code__: f for f in gc.get_objects() if isinstance(f, types.FunctionType) and f.__code__ in seen}
    return [holders[code] for code in seen if code in holders and "<" not in holders[code].__qualname__]


@contextlib.contextmanager
def faulty(function: types.FunctionType, fault: type[Exception]) -> Iterator[Callable[[], int]]:
    """Let ``function`` raise ``fault`` whenever it is called; gives a function that counts how often it was."""
    own = function.__code__
    _current[:] = [fault, function.__qualname__, 0]
    function.__code__ = _raises.__code__.replace(co_freevars=own.co_freevars, co_name=own.co_name)
    try:
        yield lambda: int(_current[2])
    finally:
        function.__code__ = own


_current: list[Any] = []
"""What is raised, for which function, and how often it was."""


def _raises(*args: Any, **kwargs: Any) -> None:
    from support import faults  # the globals are those of the function whose code this becomes

    faults.fail()


def fail() -> None:
    """Raise what is being tried."""
    _current[2] += 1
    raise _current[0](f"{_current[1]} was made to fail")
