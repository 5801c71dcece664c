"""Stand-ins for values that must not be read."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_trt_windows.modules.varying import ReadError, Varying, can_be_told, unread

SIZE = Varying("batch.size", "16, 12", "Pass a tensor instead, or choose: inputs={'batch.size': 16}")


@pytest.mark.parametrize(
    "read",
    [
        bool, int, float, str, len, iter, hash, dir, repr, math.floor, torch.ones,
        lambda v: v + 1,
        lambda v: 1 - v,
        lambda v: v == 16,
        lambda v: v < 3,
        lambda v: -v,
        lambda v: v[0],
        lambda v: v.shape,
        lambda v: 3 in v,
        lambda v: [1, 2, 3][v],
        lambda v: isinstance(v, int),
        lambda v: f"{v:>3}",
        lambda v: torch.ones(2) * v,
        lambda v: setattr(v, "a", 1),
        lambda v: v(),
    ],
)  # fmt: skip
def test_reading_is_noticed(read: Callable[[Any], Any]) -> None:
    """With the name, what was seen and a way on."""
    if read is repr:
        assert repr(unread(SIZE)) == "<batch.size, which varies>"  # for debuggers
        return
    with pytest.raises(ReadError, match=r"reads batch\.size, .*16, 12.*choose: inputs="):
        read(unread(SIZE))


def test_handing_it_on_is_not_reading() -> None:
    """Neither is storing it."""
    value = unread(SIZE)
    held = {"size": [value]}
    assert held["size"][0] is value
    assert value is not None


def test_no_stand_in_for_what_is_compared_by_identity() -> None:
    """``is None`` and ``is True`` call nothing."""
    assert [can_be_told(v) for v in (3, 1.5, "a", None, True)] == [True, True, True, False, False]


def test_descriptions_are_plain() -> None:
    """They are compared and copied with the inputs that they stand among."""
    assert copy.deepcopy(SIZE) == SIZE
