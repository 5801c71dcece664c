"""Lines above what is live in a terminal: a bar that is drawn again and again must not be written into.

A ``StreamHandler`` keeps the ``sys.stderr`` that was there when it was made, which is before any bar: what it writes
lands in the bar's line, and the bar then erases the wrong one.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

__all__ = ["above_live"]


@contextlib.contextmanager
def above_live(logger: logging.Logger | None = None) -> Iterator[None]:
    """Let what is written to the standard streams in here stand above the bars of tqdm and the displays of rich.

    Args:
        logger: Its handlers, and those above it, write where ``sys.stderr`` and ``sys.stdout`` go now.
    """
    with contextlib.ExitStack() as stack:
        handlers = list(_handlers(logger))
        for handler in handlers:
            # before any lock of a bar's: that is the order in which a handler that draws takes them
            handler.acquire()
            stack.callback(handler.release)
        _clear_tqdm(stack)
        _go_through_rich(stack, handlers)
        yield


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _clear_tqdm(stack: contextlib.ExitStack) -> None:
    """Take the bars away meanwhile."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if tqdm is not None and getattr(tqdm, "_instances", None):
        stack.enter_context(tqdm.external_write_mode(file=sys.stderr))


def _go_through_rich(stack: contextlib.ExitStack, handlers: list[logging.Handler]) -> None:
    """While rich draws, it has put itself in the place of the standard streams; handlers do not know of that."""
    if (proxy := getattr(sys.modules.get("rich.file_proxy"), "FileProxy", None)) is None:
        return
    proxies = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, proxy)]
    hidden = {id(stream.rich_proxied_file): stream for stream in proxies}
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and (shown := hidden.get(id(handler.stream))) is not None:
            stack.callback(handler.setStream, handler.stream)
            handler.setStream(shown)
    if hidden:
        _hold_still(stack)


def _hold_still(stack: contextlib.ExitStack) -> None:
    """Keep rich's own thread from drawing in the middle of a line.

    rich asks how high the display is, moves the cursor up, and draws the line and the display. Where its thread draws
    a higher or a lower one in between, the next drawing erases too much: a line of ours, for one.
    """
    import rich

    console = rich.get_console()
    # a list of displays from 14.1 on, one or none before
    for live in getattr(console, "_live_stack", None) or [getattr(console, "_live", None)]:
        if (lock := getattr(live, "_lock", None)) is not None:
            stack.enter_context(lock)
