"""The zoo: importing this fills the table."""

from __future__ import annotations

from zoo import sequences, structures, vision
from zoo.entry import ZOO, Entry

__all__ = ["ZOO", "Entry", "sequences", "structures", "vision"]
