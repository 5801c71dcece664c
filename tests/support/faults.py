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


def reached(run: Callable[[], Any], inner: types.FunctionType) -> tuple[list[types.FunctionType], ...]:
    """The functions of the package that are called, in any thread, while ``run`` runs, in the order of first calls.

    Functions that are made anew in each call of another one (closures, lambdas) are left out, for nothing holds them,
    and so are decorators around others.

    Args:
        run: What is to be looked at.
        inner: A function whose work is told from the rest.

    Returns:
        What is called outside of ``inner``, and what is called by it only.
    """
    inside: dict[types.CodeType, None] = {}
    outside: dict[types.CodeType, None] = {}
    depths: dict[int, int] = {}

    def note(frame: types.FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        thread = threading.get_ident()
        if event == "call":
            (inside if depths.get(thread) else outside).setdefault(frame.f_code)
        if frame.f_code is inner.__code__:
            depths[thread] = depths.get(thread, 0) + (1 if event == "call" else -1)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as its documentation says
    functions = [f for f in gc.get_objects() if isinstance(f, types.FunctionType) and not hasattr(f, "__wrapped__")]
    holders = {f.__code__: f for f in functions if "<" not in f.__qualname__}
    only_inside = [code for code in inside if code not in outside]
    return tuple([holders[code] for code in codes if code in holders] for codes in (outside, only_inside))


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
