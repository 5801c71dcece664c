"""What a person sees in the end who runs a program in a terminal: a real pseudo-terminal, replayed by pyte."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

__all__ = ["Seen", "seen_in_terminal"]

ROWS, COLUMNS = 200, 160
"""So high that nothing scrolls away."""


@dataclass(frozen=True)
class Seen:
    """A run of a program."""

    lines: list[str]
    """What the screen shows at the end, without what is empty."""
    drawn: str
    """All that was ever drawn, without escape codes."""
    code: int


def seen_in_terminal(command: Sequence[str], *, timeout: float = 240, **environment: str) -> Seen:
    """Run ``command`` in a terminal until it ends; skips the test where pyte is not installed."""
    pyte = pytest.importorskip("pyte")
    import fcntl
    import pty
    import termios
    import threading

    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    more = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), **environment}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **more}, start_new_session=True
    )
    os.close(theirs)
    killer = threading.Timer(timeout, process.kill)
    killer.start()
    drawn = b""
    try:
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the last one that had the terminal has ended
                break
            if not data:
                break
            drawn += data
            stream.feed(data)
        code = process.wait()
    finally:
        killer.cancel()
        os.close(ours)
    lines = [line.rstrip() for line in screen.display if line.strip()]
    return Seen(lines, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode(errors="replace")), code)
