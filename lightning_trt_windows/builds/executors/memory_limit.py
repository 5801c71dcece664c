"""How much memory a build may take, so that the training beside it keeps its own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from lightning_trt_windows.artifact.files import readable_size

__all__ = ["MemoryLimit", "memory_taken", "prefer_for_oom_kill"]

_SHARE = 0.8
"""Share of the memory that is free when a build begins which it may take by default."""


def prefer_for_oom_kill() -> None:
    """Have the kernel end this process before any other when memory runs out, in a container too. Linux alone."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


class MemoryLimit:
    """What one build may take.

    Args:
        gigabytes: Of 10^9 bytes; ``None`` for four fifths of what the machine has available now.
        held: Bytes that its process holds already, from earlier builds. They count as available.
    """

    def __init__(self, gigabytes: float | None = None, *, held: int = 0) -> None:
        self._told = gigabytes is not None
        available = psutil.virtual_memory().available + held
        self.bytes = int(gigabytes * 1e9 if gigabytes is not None else available * _SHARE)

    def exceeded(self, pid: int) -> str:
        """A sentence, if process ``pid`` has taken more; otherwise nothing."""
        taken = memory_taken(pid)
        if taken <= self.bytes:
            return ""
        allowed = "" if self._told else ", four fifths of what was free when it began"
        return (
            f"took {readable_size(taken)} of memory, may take {readable_size(self.bytes)}{allowed}, and was killed; "
            "build_memory allows it more"
        )


def memory_taken(pid: int) -> int:
    """Bytes of the process's own: libraries and files that it maps can be dropped at any time. 0 where it has ended."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
