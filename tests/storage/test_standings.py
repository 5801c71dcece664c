"""Which artifact is the best, and which the last."""

from __future__ import annotations

import pytest

from lightning_trt_windows.storage.standings import best_of, last_of, order_of


@pytest.mark.parametrize(
    ("scores", "mode", "best"),
    [
        ({"a": 0.5, "b": 0.7, "c": 0.6}, "max", "b"),
        ({"a": 0.5, "b": 0.7, "c": 0.6}, "min", "a"),
        ({"a": 0.5, "b": 0.7, "c": 0.7}, "max", "b"),
        ({"last": 0.7, "b": 0.7}, "max", "last"),  # it has fewer steps
    ],
)
def test_best(scores: dict[str, float], mode: str, best: str) -> None:
    """By its score; of equal ones the earliest, which is the one that ModelCheckpoint keeps."""
    scored = [(score, order_of(name, step, 0), name) for step, (name, score) in enumerate(scores.items())]
    assert best_of(scored, mode) == best
    assert best_of(reversed(scored), mode) == best


def test_a_copy_that_is_called_last() -> None:
    """``last.ckpt`` is the last one and not the best one where another is of the same step."""
    orders = [(order_of(name, 20, 1), name) for name in ("last.windows.ep", "epoch=1.windows.ep")]
    assert last_of(orders) == "last.windows.ep"
    assert best_of([(0.5, *order) for order in orders], "min") == "epoch=1.windows.ep"


def test_what_is_not_known_comes_first() -> None:
    """A module that came from no checkpoint has no step."""
    assert last_of([(order_of("a", None, None), "a"), (order_of("b", 0, None), "b")]) == "b"
