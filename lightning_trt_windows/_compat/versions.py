"""Which release of an upstream does what: cutting a version to its minor, and the record of a workaround."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Workaround", "minor"]


def minor(version: str | None) -> tuple[int, int]:
    """``(2, 14)`` of ``"2.14.1+cpu"`` and of ``"2.14.0a0"``; ``(0, 0)`` where there is no version, or none is in it."""
    found = re.match(r"(\d+)(?:\.(\d+))?", version or "")
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


@dataclass(frozen=True, kw_only=True)
class Workaround:
    """What an upstream gets wrong, in which of its releases, and how we shall know that it no longer does."""

    upstream: str
    """Name of the distribution, for people."""
    since: str
    """First minor in which it was seen, as ``"2.11"``: the oldest supported one where it has always been there."""
    until: str | None
    """First minor in which it was seen fixed; ``None`` while none is."""
    reason: str
    """What goes wrong without the workaround."""
    link: str
    """Upstream's issue, or the lines that are at fault."""
    test: str
    """The test in ``tests/_compat/`` that fails when the installed upstream no longer needs it."""
    delete: str
    """When the workaround can be deleted."""

    def needed_by(self, version: str | None) -> bool:
        """Whether ``version`` of the upstream is one of those that have the fault."""
        return minor(self.since) <= minor(version) and (self.until is None or minor(version) < minor(self.until))
