"""What PyTorch, Torch-TensorRT and TensorRT say while they work: kept aside, and in a log where the work fails.

Upstream writes pages of warnings in exports that are perfectly fine. Here they are collected: Python's warnings, log
records, TensorRT's messages, and what ``torch.export`` prints of a graph. Where a build fails they stand in
``NAME.windows.log`` beside the artifact; where it succeeds they are gone, unless the environment variable
``LIGHTNING_TRT_WINDOWS_KEEP_LOG`` is set.

Only what is said in the thread that works is taken: warnings, log records and ``sys.stderr`` belong to the whole
process, and what other threads of the user's say goes where it always went. What C++ code writes to the file descriptor
itself is left alone here, because a descriptor cannot tell threads apart; a build process has a log of its own for it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.errors import ArtifactError, LightningTrtError

__all__ = ["KEEP_LOG", "forward_lines", "log_beside", "quiet", "record_line", "stderr_kept", "unlogged"]

KEEP_LOG = "LIGHTNING_TRT_WINDOWS_KEEP_LOG"
"""Environment variable: keep the log of an export that succeeds too."""

_LOGGERS = ("torch_tensorrt", "torch")

_lines: ContextVar[list[str] | None] = ContextVar("lightning_trt_windows_lines", default=None)
_listener: ContextVar[Callable[[str], None] | None] = ContextVar("lightning_trt_windows_listener", default=None)


def record_line(line: str) -> None:
    """Keep a line of upstream's for the log."""
    if listener := _listener.get():
        listener(line)
    if (lines := _lines.get()) is not None:
        lines.append(line)


@contextlib.contextmanager
def forward_lines(listener: Callable[[str], None]) -> Iterator[None]:
    """Give lines to ``listener`` as they come; it keeps the log, so that none is written beside the artifact."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def log_beside(paths: ArtifactPaths) -> Iterator[None]:
    """Write what is said in here to a log beside the artifact if it fails, and name it in the error's message."""
    if _lines.get() is not None:  # a part of something larger, whose log has it
        yield
        return
    lines: list[str] = []
    token = _lines.set(lines)
    log, keep = paths.log, bool(os.environ.get(KEEP_LOG))
    try:
        yield
    except Exception as error:
        if lines and (keep or _listener.get() is None) and _written(log, lines):
            _name(error, log)
        raise
    else:
        if keep:
            _written(log, lines)
        else:
            with contextlib.suppress(OSError):
                log.unlink()
    finally:
        _lines.reset(token)


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Let what is said in here go nowhere."""
    token = _lines.set([])
    try:
        yield
    finally:
        _lines.reset(token)


def _written(log: Path, lines: list[str]) -> bool:
    try:
        log.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError:  # what failed is worth more than this
        return False
    return True


def _name(error: Exception, log: Path) -> None:
    if isinstance(error, LightningTrtError) and not isinstance(error, ArtifactError) and error.args:
        first, *rest = error.args
        error.args = (f"{first}\n{log.name} has what PyTorch and TensorRT said meanwhile", *rest)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Collect this thread's warnings and upstream's log records instead of printing them; yields their list."""
    lines: list[str] = []
    mine = threading.get_ident()

    def take(line: str) -> None:
        lines.append(line)
        record_line(line)

    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        # whatever the user's filters are: an upstream warning that is an error to them would end the export
        warnings.simplefilter("always")
        show = warnings.showwarning

        def showwarning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if threading.get_ident() == mine:
                take(f"{category.__name__}: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = showwarning
        for name in (*_LOGGERS, *_with_handlers_of_their_own()):
            stack.enter_context(_collected(logging.getLogger(name), take))
        yield lines


def _with_handlers_of_their_own() -> list[str]:
    """Loggers below upstream's that do not hand on what they are told.

    ``torch._subclasses.fake_tensor`` is one: where a lowering pass fails and another way is taken, it prints a
    traceback of a hundred lines. Structured traces (``TORCH_TRACE``) go to a file and stay as they are.
    """
    below = tuple(f"{name}." for name in _LOGGERS)
    known = list(logging.root.manager.loggerDict.items())
    return [
        name
        for name, logger in known
        if name.startswith(below) and name != "torch.__trace" and isinstance(logger, logging.Logger) and logger.handlers
    ]


@contextlib.contextmanager
def _collected(logger: logging.Logger, take: Callable[[str], None]) -> Iterator[None]:
    mine = threading.get_ident()
    handlers, propagate = logger.handlers[:], logger.propagate

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.get_ident() != mine:
                for handler in handlers:
                    if record.levelno >= handler.level:
                        handler.handle(record)
                if propagate and logger.parent:
                    logger.parent.callHandlers(record)
            elif record.levelno < logging.WARNING and not propagate:
                # asked for by TORCH_LOGS
                for handler in handlers:
                    handler.handle(record)
            elif record.levelno >= logging.WARNING:
                take(f"{record.levelname} {record.name}: {record.getMessage()}")

    logger.handlers, logger.propagate = [Collector()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate


class _OfOneThread(io.TextIOBase):
    """Takes what one thread writes, and hands on what others do."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._thread = threading.get_ident()
        self._kept = io.StringIO()

    def write(self, text: str) -> int:
        stream = self._kept if threading.get_ident() == self._thread else self._real
        return int(stream.write(text) or 0)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._real.flush()

    def isatty(self) -> bool:
        return False

    def kept(self) -> list[str]:
        return self._kept.getvalue().splitlines()


@contextlib.contextmanager
def stderr_kept() -> Iterator[None]:
    """Keep what this thread writes to ``sys.stderr`` for the log."""
    stream = _OfOneThread(sys.stderr)
    try:
        with contextlib.redirect_stderr(stream):
            yield
    finally:
        for line in stream.kept():
            record_line(line)
