"""Objects taken apart by what they hold, and made again."""

from __future__ import annotations

import enum
from collections import UserDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows.modules.stored import declared_fields, holds_tensors, made_of, state_of, with_field_names

attrs = pytest.importorskip("attrs")
pydantic = pytest.importorskip("pydantic")
X = torch.ones(2)


@dataclass
class Data:
    x: Tensor
    later: int = field(init=False)

    def __post_init__(self) -> None:
        self.later = 1
        if not isinstance(self.x, Tensor):
            raise TypeError("x is no tensor")

    @cached_property
    def twice(self) -> Tensor:
        return self.x * 2


@attrs.define
class Attrs:
    x: Tensor
    size: int = 0


class Model(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    x: Tensor
    size: int = 0


class Slots:
    __slots__ = ("unset", "x")

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Guarded:
    """An attribute that cannot be set from outside."""

    def __init__(self, x: Tensor) -> None:
        object.__setattr__(self, "x", x)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("frozen")


class Kind(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (Data(X), ["x", "later"]),
        (Attrs(X, 2), ["x", "size"]),
        (Model(x=X, size=2), ["x", "size"]),
        (Slots(X), ["x"]),
        (Guarded(X), ["x"]),
    ],
)
def test_taken_apart_and_made_again(value: Any, state: list[str]) -> None:
    """Also with what its constructor would refuse."""
    found = state_of(value)
    assert found is not None
    # pydantic has attributes of its own behind the fields
    assert [name for name in found if not name.startswith("__pydantic")] == state
    assert found["x"] is X
    again = made_of(type(value), found, ["no tensor", *list(found.values())[1:]])
    assert type(again) is type(value)
    assert again.x == "no tensor"


def test_what_is_computed_when_asked_for_is_left_out() -> None:
    """``cached_property`` would be wrong for other values."""
    data = Data(X)
    assert data.twice[0] == 2
    assert list(state_of(data) or ()) == ["x", "later"]


@pytest.mark.parametrize("value", [nn.Linear(1, 1), X, Data, Kind.ONE, ValueError(), len, state_of, object(), iter([])])
def test_what_is_never_taken_apart(value: Any) -> None:
    """Modules, tensors, functions, and objects that hold more than attributes."""
    assert state_of(value) is None


def test_fields() -> None:
    """Of the three kinds of classes that declare them, and none of others."""
    assert declared_fields(Data) == ("x", "later")
    assert declared_fields(Attrs) == declared_fields(Model) == ("x", "size")
    assert declared_fields(Slots) is None


def test_descriptors_are_called_by_their_field() -> None:
    """``_x`` is where one keeps ``x``, unless there is an ``x`` as well."""
    assert with_field_names(Data, ("_x", "later", "_other")) == ("x", "later", "_other")
    assert with_field_names(Data, ("x", "_x")) == ("x", "_x")


def test_tensors_inside() -> None:
    """Not too deep, and not in a circle."""
    slots = Slots(X)
    ring: Any = Slots(torch.ones(1))
    ring.x = [ring]
    assert holds_tensors({"a": [slots]})
    assert holds_tensors(Slots(UserDict(x=X))) and not holds_tensors(UserDict(x=1))
    assert not holds_tensors(ring)
    assert not holds_tensors({"a": [1, "text", None]})
    deep: Any = X
    for _ in range(8):
        deep = [deep]
    assert not holds_tensors(deep)
