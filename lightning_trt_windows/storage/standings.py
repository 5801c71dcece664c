"""Which of several artifacts is the best and which the last: one answer for indexes and for bundles.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

__all__ = ["Order", "best_of", "last_of", "order_of"]

_T = TypeVar("_T")

Order = tuple[int, int, bool]
"""Place in the order of training: optimizer steps, epoch, and whether it is called the last one."""


def order_of(file: str, global_step: int | None, epoch: int | None) -> Order:
    """The place of an artifact ``file``; what is not known comes first."""
    return -1 if global_step is None else global_step, -1 if epoch is None else epoch, "last" in file.lower()


def best_of(scored: Iterable[tuple[float, Order, _T]], mode: str) -> _T:
    """The one with the highest score, or the lowest where ``mode`` is not ``"max"``; there must be one.

    Of equal ones the earliest, as ModelCheckpoint keeps it.
    """
    sign = -1 if mode == "max" else 1
    return min(scored, key=lambda item: (sign * item[0], item[1]))[2]


def last_of(placed: Iterable[tuple[Order, _T]]) -> _T:
    """The one with the most steps, and of equal ones that is called so; there must be one."""
    return max(placed, key=lambda item: item[0])[1]
