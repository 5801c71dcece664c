"""What was seen travels in a checkpoint: plain values there, and the same ranges afterwards."""

from __future__ import annotations

import inspect
import io
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows.discovery.carried import MOST, carried, restore
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import ShapeDiscoveryError

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Batch:
    """A batch of a project."""

    image: Tensor
    mask: Tensor | None = None


class Net(nn.Module):
    """Takes containers."""

    def forward(self, x: Tensor, batch: Any, ids: Tensor, scale: float = 1.0, mode: str = "a") -> Tensor:
        return x


def seen(sizes: tuple[int, ...] = (8, 8, 5)) -> Observer:
    """What an observer sees of a training."""
    observer, module = Observer(), Net()
    observer.attach(module)
    observer.stage("train")
    for size in sizes:
        batch = {"pair": Pair(torch.ones(size, 2), torch.ones(size, 3)), "it": Batch(torch.ones(size, 4))}
        observer.batch(batch)
        module(torch.ones(size, 4), batch, torch.arange(size), scale=0.5, mode="b")
    observer.detach()
    observer.loader_sizes["train"] = {8}
    return observer


def written(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint holds it, read without running anything."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    found: dict[str, Any] = torch.load(buffer, weights_only=True)
    return found


def test_the_same_ranges() -> None:
    """Containers of every kind, constants, values of integers, sizes of loaders."""
    before, after = seen(), Observer()
    restore(after, written(carried(before)), signature=inspect.signature(Net.forward.__get__(Net())))
    one, other = discover(Net(), observer=before), discover(Net(), observer=after)
    assert repr(one.inputs) == repr(other.inputs)
    assert one.sources == other.sources
    assert one.inputs["ids"].values == other.inputs["ids"].values  # type: ignore[union-attr]


def test_a_training_that_is_resumed_counts_on() -> None:
    """What is seen afterwards widens what was seen before."""
    observer = Observer()
    restore(observer, carried(seen((8, 8, 5))))
    module = Net()
    observer.attach(module)
    observer.stage("train")
    module(torch.ones(32, 4), Batch(torch.ones(32, 4)), torch.arange(32))
    counts = sorted((o.args[0].shape[0], o.count) for o in observer.calls())
    assert counts == [(5, 1), (8, 2), (32, 1)]


def test_many_shapes() -> None:
    """The frequent ones are carried, and those at the ends of each range."""
    sizes = (*range(2, 2 * MOST), 1, 5000, *range(2, MOST))
    after = Observer()
    restore(after, carried(seen(sizes)))
    found = [o.args[0].shape[0] for o in after.calls()]
    assert len(found) < 2 * MOST
    assert (min(found), max(found)) == (1, 5000)


def test_what_has_no_plain_form() -> None:
    """A note, and the other calls."""
    observer, module = Observer(), Net()
    observer.attach(module)
    module(torch.ones(2, 4), None, torch.arange(2), scale=slice(3))
    module(torch.ones(3, 4), None, torch.arange(3))
    state = carried(observer)
    assert state["notes"] == ["calls with a builtins.slice are not carried"]
    after = Observer()
    restore(after, state)
    assert [o.args[0].shape[0] for o in after.calls()] == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "in the form 99 were found, but 1 is read here"),
        ({"method": "encode"}, "those of encode, and forward is to be exported"),
        ({"tables": 3}, "do not fit: TypeError"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    """One kind of error."""
    with pytest.raises(ShapeDiscoveryError, match=message):
        restore(Observer(), {**carried(seen()), **change})


def test_a_forward_that_has_changed() -> None:
    """The calls of the training are none of it."""
    signature = inspect.signature(lambda x: x)
    with pytest.raises(ShapeDiscoveryError, match="do not fit: TypeError"):
        restore(Observer(), carried(seen()), signature=signature)


def test_classes() -> None:
    """Those of a script are looked for where the module's class is; nothing is imported."""
    text = repr(carried(seen())).replace(repr(__name__), "'__main__'")
    state: dict[str, Any] = eval(text)
    restore(Observer(), state, home=__name__)
    with pytest.raises(ShapeDiscoveryError, match="that class has not been imported"):
        restore(Observer(), state)


def test_parts_that_are_watched_make_way_for_those_that_were_seen() -> None:
    """A training that is resumed: what was put on submodules is taken off in the end, and counts until then."""

    class Steps(torch.nn.Module):
        """Has no forward."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def seen(state: Any = None) -> Observer:
        module, observer = Steps(), Observer()
        observer.attach(module)
        if state is not None:
            restore(observer, state)
        observer.stage("train")
        module.first(torch.ones(2, 4))
        observer.detach()
        assert [name for name, part in module.named_modules() if "forward" in vars(part)] == []
        return observer

    observer = seen(carried(seen()))
    assert [o.count for o in observer.parts["first"].calls()] == [2]
