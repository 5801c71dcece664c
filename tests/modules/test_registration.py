"""Container classes that torch.export is told of."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_trt_windows.modules.registration import (
    can_be_saved,
    classes_in,
    keys_of,
    leaf_names,
    register_containers,
    register_named_tuples,
)

X = torch.ones(2, 4)


@dataclass
class Sample:
    image: Tensor
    mask: Tensor | None = None


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


class WithoutKeys:
    """Registered, but so that torch.export refuses it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


pytree.register_pytree_node(WithoutKeys, lambda v: ([v.x], None), lambda t, _: WithoutKeys(*t))


def test_a_registered_class_is_exported_saved_and_named_by_field() -> None:
    """What is ``None`` is no leaf."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"sample": Sample(x + 1), "pair": Pair(x, x * 2)}

    names = register_containers(Net()(X))
    assert sorted(name.rpartition(".")[2] for name in names) == ["Pair", "Sample"]
    assert register_containers(Net()(X)) == ()
    program = torch.export.export(Net(), (X,))
    spec = program.call_spec.out_spec
    assert spec is not None
    assert list(leaf_names(spec, "output")) == ["output.sample.image", "output.pair.a", "output.pair.b"]
    assert classes_in(spec) == {dict, Sample, Pair}
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    sample = torch.export.load(file).module()(X)["sample"]
    assert type(sample) is Sample and sample.mask is None
    torch.testing.assert_close(sample.image, X + 1)


def test_what_can_be_saved() -> None:
    """It takes keys and a name."""
    register_containers(Sample(X))
    assert can_be_saved(Sample)
    assert not can_be_saved(WithoutKeys)
    assert not can_be_saved(io.BytesIO)


def test_named_tuples_that_were_traced_unregistered() -> None:
    """They are nodes by nature; a name is what saving takes."""

    class Fresh(NamedTuple):
        x: Tensor

    _, spec = pytree.tree_flatten({"f": Fresh(X)})
    register_named_tuples(spec)
    assert can_be_saved(Fresh)


def test_keys_from_the_description_alone() -> None:
    """Classes that refuse what is no tensor are named all the same."""
    _, spec = pytree.tree_flatten({"w": WithoutKeys(X), "l": [X, X]})
    assert keys_of(spec) == ("w", "l")
    assert list(leaf_names(spec, "v")) == ["v.w.0", "v.l.0", "v.l.1"]
