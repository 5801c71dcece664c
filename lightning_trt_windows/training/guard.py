"""The one place that keeps exceptions away from a training.

Whatever fails while a hook of the callback runs, ours, upstream's or the user's own, becomes a failure that is
reported, and a traceback in a log. Interruptions (``KeyboardInterrupt``, ``SystemExit``) pass.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from lightning_trt_windows.storage.remote_file import RemoteFile, is_remote

__all__ = ["LOG_NAME", "Guard", "hook", "never_raises"]

LOG_NAME = "lightning-trt-windows.log"
"""File in the Trainer's root directory with the tracebacks of what failed in hooks."""

_T = TypeVar("_T", bound=Callable[..., Any])


class Guard:
    """Turns exceptions into failures.

    Args:
        on_failure: Is told of the checkpoint, or ``None``, and the exception.
    """

    def __init__(self, on_failure: Callable[[Path | RemoteFile | None, Exception], None]) -> None:
        self._on_failure = on_failure
        self.directory: str | os.PathLike[str] | None = None
        """Where the log goes: the Trainer's root directory; no log where that is elsewhere."""
        self._reported: set[tuple[str, ...]] = set()

    def begin(self) -> None:
        """A run begins: what failed in an earlier one is told of once more."""
        self._reported.clear()

    @contextlib.contextmanager
    def __call__(self, doing: str, checkpoint: Path | RemoteFile | None = None) -> Iterator[None]:
        """Let no exception out of the block.

        Args:
            doing: What the block does, for the log.
            checkpoint: The checkpoint that it is about.
        """
        try:
            yield
        except Exception as error:  # whatever it is, the training goes on
            self.caught(doing, error, checkpoint)

    def caught(self, doing: str, error: Exception, checkpoint: Path | RemoteFile | None = None) -> None:
        """Report ``error`` and log where it came from; what fails in every step is told of once."""
        what = (type(error).__name__, str(error))
        if (str(checkpoint), *what) in self._reported or (checkpoint is None and what in self._reported):
            return
        self._reported |= {(str(checkpoint), *what), what}
        self._log(doing, error)
        try:
            self._on_failure(checkpoint, error)
        except Exception:  # warnings that the user turned into errors, a closed stream
            logging.getLogger(__name__).exception("WindowsExport: a failure of %s could not be reported", doing)

    def _log(self, doing: str, error: Exception) -> None:
        if self.directory is None or is_remote(self.directory):
            return
        with contextlib.suppress(Exception), (Path(self.directory) / LOG_NAME).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {doing}\n")
            log.write("".join(traceback.format_exception(error)) + "\n")


def hook(*, raises: bool = False) -> Callable[[_T], _T]:
    """Make a method of the callback a hook that no exception leaves.

    Args:
        raises: With ``on_error="raise"`` the exception is raised here, where it cannot end a training that has begun.

    Returns:
        A decorator.
    """

    def decorate(method: _T) -> _T:
        @functools.wraps(method)
        def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:  # as above
                if raises and _is_to_raise(self):
                    raise
                try:
                    self._guard.caught(method.__name__, error)
                except Exception:
                    logging.getLogger(__name__).exception("WindowsExport: %s failed", method.__name__)
                return None

        return cast("_T", guarded)

    return decorate


def never_raises(describe: Callable[[Any], str]) -> Callable[[Any], str]:
    """Make a ``__repr__`` that gives what every object gives where it fails.

    The constructor of the Trainer describes all of its arguments, for a log that hardly anybody reads.
    """

    @functools.wraps(describe)
    def described(self: Any) -> str:
        try:
            return describe(self)
        except Exception:  # as above
            return object.__repr__(self)

    return described


def _is_to_raise(callback: Any) -> bool:
    try:
        return bool(callback.on_error == "raise")
    except Exception:  # of what cannot be read, training goes on
        return False
