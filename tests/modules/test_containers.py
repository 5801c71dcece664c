"""Containers of every kind are taken apart, rebuilt, and made known to torch.export."""

from __future__ import annotations

import io
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.modules.containers import (
    Node,
    built,
    dotted,
    join,
    leaves,
    map_leaves,
    split,
)
from lightning_trt_windows.modules.registration import register_containers, registration_code

SPEC = InputSpec((DimRange(1, 2, 3), 4))
Old = namedtuple("Old", ["a", "b"])


class Pair(NamedTuple):
    """As written today."""

    a: Any
    b: Any


@dataclass
class Batch:
    """With a check that only tensors pass, and a field that no one passes."""

    a: Any
    b: Any = None
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Count."""
        self.total = len(self.a.shape)


class Attrs:
    """What attrs makes of a class, as far as it can be told from outside."""

    __attrs_attrs__ = (type("Attribute", (), {"name": "a"}), type("Attribute", (), {"name": "b"}))

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b


class Encoding(UserDict[str, Any]):
    """A mapping that is no dict, as tokenizers return it."""


class Bag(list[Any]):
    """A list of a class of its own."""


X, Y = torch.ones(2, 4), torch.zeros(2)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"a": X, "b": {"c": Y}}, ["v.a", "v.b.c"]),
        ([X, (Y,)], ["v.0", "v.1.0"]),
        (OrderedDict(a=X), ["v.a"]),
        (Old(X, Y), ["v.a", "v.b"]),
        (Pair(X, [Y]), ["v.a", "v.b.0"]),
        (Batch(X, Y), ["v.a", "v.b", "v.total"]),
        (Attrs(X, Y), ["v.a", "v.b"]),
        (Encoding({"a": X}), ["v.a"]),
        (Bag([X]), ["v.0"]),
        (torch.return_types.max((X, Y)), ["v.0", "v.1"]),
        (X, ["v"]),
        (SPEC, ["v"]),
        (None, ["v"]),
        ("text", ["v"]),
        ({}, []),
    ],
)
def test_every_container_is_taken_apart_and_rebuilt(value: Any, names: list[str]) -> None:
    """Dotted names lead to the leaves, and the rebuilt value has the same class and leaves."""
    assert [name for name, _ in leaves({"v": value})] == names
    rebuilt = built(map_leaves(value, lambda name, leaf: leaf, "v"))
    assert type(rebuilt) is type(value)
    assert [id(leaf) for _, leaf in leaves({"v": rebuilt})] == [id(leaf) for _, leaf in leaves({"v": value})]


def test_specs_take_the_place_of_tensors() -> None:
    """Constructors that check for tensors do not run."""
    tree = map_leaves(Batch(X, Pair(Y, None)), lambda name, leaf: SPEC if isinstance(leaf, torch.Tensor) else leaf, "x")
    assert [(name, leaf) for name, leaf in leaves({"x": tree})] == [
        ("x.a", SPEC),
        ("x.b.a", SPEC),
        ("x.b.b", None),
        ("x.total", 2),
    ]


def test_unknown_classes_are_leaves() -> None:
    """Classes themselves too."""
    assert split(object()) is None
    assert split(Batch) is None


def test_dotted_names() -> None:
    """Indices and keys alike."""
    assert dotted("pair", 0, "x") == "pair.0.x"
    assert dotted("", "x") == "x"


def test_registered_classes_keep_what_their_registration_keeps() -> None:
    """The user's own flattening decides, and its context comes back."""

    class Graph:
        def __init__(self, nodes: Any, kind: str) -> None:
            self.nodes, self.kind = nodes, kind

    pytree.register_pytree_node(Graph, lambda g: ([g.nodes], g.kind), lambda c, kind: Graph(*c, kind))
    parts = split(Graph(X, "directed"))
    assert parts is not None
    assert parts.keys == ("nodes",)
    assert join(parts, [SPEC]) == Node(Graph, ("nodes",), (SPEC,))
    rebuilt = built(join(parts, [Y]))
    assert (rebuilt.nodes, rebuilt.kind) == (Y, "directed")


@pytest.mark.parametrize("make", [Pair, Old, Batch, Attrs, lambda a, b: Encoding(a=a, b=b), lambda a, b: Bag([a, b])])
def test_registered_containers_can_be_exported_and_saved(make: Callable[[Any, Any], Any]) -> None:
    """In and out of a program, through a file."""

    class Model(torch.nn.Module):
        def forward(self, batch: Any) -> Any:
            parts = split(batch)
            assert parts is not None
            a, b = parts.children[:2]
            return make(a + b[:, None], b * 2)

    value = make(X, Y)
    register_containers({"batch": value})
    assert register_containers({"batch": value}) == ()
    program = torch.export.export(Model(), (value,))
    program.example_inputs = None  # they are pickled, with the class
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    result = torch.export.load(buffer).module()(value)
    assert type(result) is type(value)
    assert all(torch.equal(r, e) for r, e in zip(split(result).children[:2], (X + Y[:, None], Y * 2)))  # type: ignore[union-attr]


def test_registering_says_what_it_registered() -> None:
    """Nested classes too, each once."""

    @dataclass
    class Inner:
        x: Any

    @dataclass
    class Outer:
        inner: Any

    names = register_containers([Outer(Inner(X)), Outer(Inner(Y))])
    assert [name.rpartition(".")[2] for name in names] == ["Outer", "Inner"]


def test_the_registration_shown_is_valid_code() -> None:
    """With the class's own name in it."""
    code = registration_code(Encoding)
    compile(code, "shown", "exec")
    assert code.count("Encoding") >= 3
