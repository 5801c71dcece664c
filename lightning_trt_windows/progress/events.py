"""What long work is doing at the moment, told to whoever wants to show it. Standard library only.

Work says ``stage("compile", of=…)`` where it begins something long; it does not know who listens, and mostly nobody
does. A listener hears what happens in its own thread; a process passes it on (``builds/executors/worker.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeAlias

__all__ = ["Listener", "listening", "stage"]

Listener: TypeAlias = Callable[[str, str], None]
"""Called with what is done (``capture``, ``compile``, ``write`` …) and the name of the file it is done for."""

_listener: ContextVar[Listener | None] = ContextVar("lightning_trt_windows_stages", default=None)


def stage(name: str, of: str = "") -> None:
    """Say that ``name`` begins, for the file called ``of``."""
    if listener := _listener.get():
        listener(name, of)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener`` hear of stages, instead of the one before it."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
