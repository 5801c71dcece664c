"""What projects hand to ``forward``, from the call that was seen to the program and its numbers."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.program import Captured, capture
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import CaptureError

attrs = pytest.importorskip("attrs")
pydantic = pytest.importorskip("pydantic")
BATCH = DimRange(1, 4, 8, name="batch")


class Checked:
    """A descriptor that takes tensors only."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, instance: Any, owner: type) -> Any:
        return None if instance is None else getattr(instance, self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"expected a tensor, got {type(value)}")
        setattr(instance, self.name, value)


@dataclass
class Validating:
    image: Checked = Checked()


@dataclass
class Packed:
    """Fields that the constructor does not take, and one that only the constructor takes."""

    items: InitVar[list[Tensor]]
    image: Tensor = field(init=False)
    size: int = field(init=False)
    paths: list[str] = field(init=False)

    def __post_init__(self, items: list[Tensor]) -> None:
        self.image = torch.stack(items)
        self.size = len(items)
        self.paths = [str(n) for n in range(len(items))]


@dataclass(frozen=True)
class Frozen:
    image: Tensor

    @cached_property
    def double(self) -> Tensor:
        return self.image * 2


class Slots:
    __slots__ = ("_size", "image")

    def __init__(self, image: Tensor) -> None:
        self.image, self._size = image, len(image)


class Plain:
    """Of no kind that declares its fields, and it points at itself."""

    def __init__(self, image: Tensor) -> None:
        self.image, self.me, self.made_by = image, self, object()


@attrs.frozen
class Attrs:
    """With a validator, and a size that differs."""

    image: Tensor = attrs.field(validator=attrs.validators.instance_of(Tensor))
    size: int = 0


class Model(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    """Checks what it is given."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    image: Tensor
    size: int = 0


class Row(NamedTuple):
    image: Tensor
    name: str


class Tagged(Tensor):
    """A tensor that carries a word along, and has a word in everything that is done with it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("observing runs nothing of the user's")


@dataclass
class WithoutKeys:
    image: Tensor


pytree.register_pytree_node(WithoutKeys, lambda v: ([v.image], None), lambda t, _: WithoutKeys(*t))


class Net(nn.Module):
    """Takes the image out of whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, batch: Any) -> Tensor:
        return self.layer(batch.image)


def captured(module: nn.Module, *calls: tuple[Any, ...], **keywords: Any) -> Captured:
    """The capture after ``forward`` has been called like that in a training."""
    observer = Observer()
    observer.attach(module)
    observer.stage("train")
    for call in calls:
        observer._record(call, {})
    observer.detach()
    return capture(module, discover(module, observer=observer, **keywords).inputs)


KINDS: list[Callable[[Tensor], Any]] = [
    Validating,
    lambda x: Packed(list(x)),
    Frozen,
    Slots,
    Plain,
    lambda x: Row(x, f"row of {len(x)}"),
    WithoutKeys,
    lambda x: Attrs(x, len(x)),
    lambda x: Model(image=x, size=len(x)),
]
_NAMES = ["validating", "packed", "frozen", "slots", "plain", "named", "registered", "attrs", "pydantic"]


@pytest.mark.parametrize("make", KINDS, ids=_NAMES)
def test_batches_of_any_class(make: Callable[[Tensor], Any]) -> None:
    """Seen, named by field, traced as the class that forward expects, called with what a PC has, and saved."""
    net = Net()
    found = captured(net, (make(torch.rand(4, 3)),), (make(torch.rand(2, 3)),))
    (item,) = found.inputs
    assert (item.name, item.symbols) == ("batch.image", ("batch", None))
    x = torch.rand(3, 3)
    torch.testing.assert_close(found.program.module()({"image": x}), net.layer(x))
    found.program.example_inputs = None
    torch.export.save(found.program, io.BytesIO())


def test_tensors_of_a_class_of_their_own() -> None:
    """Which only add to what a tensor is: observed without a call of theirs, traced as plain tensors."""
    observer = Observer()
    net = nn.Linear(3, 2)
    observer.attach(net)
    observer._record((torch.rand(4, 3).as_subclass(Tagged),), {})
    assert observer.notes == []
    observer.detach()
    assert capture(net, discover(net, observer=observer).inputs).inputs[0].spec.shape[1] == 3


def test_a_value_that_varies_and_is_read() -> None:
    """The line that reads it, its values, and what to write; with the value chosen it works."""

    class Divided(Net):
        def forward(self, batch: Any) -> Tensor:
            return self.layer(batch.image) / batch.size

    calls = [(Packed(list(torch.rand(n, 3))),) for n in (4, 2)]
    with pytest.raises(CaptureError, match=r"(?s)test_calling\.py:\d+ .*reads batch\.size.*\(4, 2\).*'batch\.size': 4"):
        captured(Divided(), *calls)
    assert [item.name for item in captured(Divided(), *calls, inputs={"batch.size": 4}).inputs] == ["batch.image"]


@pytest.mark.parametrize(
    "read",
    [
        lambda size: isinstance(size, int),
        lambda size: f"{size}",
        lambda size: getattr(size, "real", 0),
        lambda size: size == 4,
        lambda size: [0] * size,
        lambda size: torch.zeros(size),
        bool,
        hash,
    ],
)
def test_every_way_of_reading_is_noticed(read: Callable[[Any], Any]) -> None:
    """No program is made that holds one of the values in silence."""

    class Reading(nn.Module):
        def forward(self, x: Tensor, size: int) -> Tensor:
            return x + 1 if read(size) is not None else x

    with pytest.raises(CaptureError, match="forward reads size, which is not a tensor and varies"):
        captured(Reading(), (torch.rand(4, 3), 4), (torch.rand(2, 3), 2))


def test_an_argument_that_nothing_reads() -> None:
    """It is no argument of the program, between two that are."""

    class Middle(nn.Module):
        def forward(self, x: Tensor, size: int, y: Tensor) -> Tensor:
            return x + y

    found = captured(Middle(), *[(torch.rand(n, 3), n, torch.rand(n, 3)) for n in (4, 2)])
    x = torch.rand(3, 3)
    torch.testing.assert_close(found.program.module()(x, x), x * 2)


def test_entries_of_variadic_arguments() -> None:
    """Each is an argument of the program: ``**kwargs`` by its key, ``*args`` by its number."""

    class Many(nn.Module):
        def forward(self, first: Tensor, *views: list[Tensor], scale: float = 1.0, **more: Tensor) -> Tensor:
            (a0, a1), (b0, b1) = views
            return first + 2 * a0 + 3 * a1 + 4 * b0 + 5 * b1 + scale * more["x"] + 7 * more["z"]

    spec = InputSpec((BATCH, 3))
    inputs = {"first": spec, "views": ([spec, spec], [spec, spec]), "scale": 6.0, "more": {"x": spec, "z": spec}}
    found = capture(Many(), inputs)
    assert [item.name for item in found.inputs] == [
        "first", "views_0.0", "views_0.1", "views_1.0", "views_1.1", "x", "z",
    ]  # fmt: skip
    assert [item.path for item in found.inputs][-1] == "more.z"
    one = torch.ones(2, 3)
    parts = [one * n for n in range(7)]
    result = found.program.module()(parts[0], parts[1:3], parts[3:5], scale=6.0, x=parts[5], z=parts[6])
    torch.testing.assert_close(result, one * (2 + 6 + 12 + 20 + 30 + 42))


def test_inputs_in_another_order_than_the_signature() -> None:
    """The program's order is that of the signature."""

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x - y

    assert [i.name for i in capture(Two(), {"y": InputSpec((3,)), "x": InputSpec((2, 3))}).inputs] == ["x", "y"]


class TestOutputs:
    def test_what_torch_returns(self) -> None:
        """Results of topk, max and sort are tuples: they could be traced and not saved."""

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return {"top": x.topk(2), "most": x.max(1), "sorted": [x.sort(-1)], "nothing": None}

        found = capture(Module(), {"x": InputSpec((BATCH, 6))})
        names = ["top.0", "top.1", "most.0", "most.1", "sorted.0.0", "sorted.0.1", "nothing"]
        assert [record.name for record in found.outputs] == [f"output.{name}" for name in names]
        torch.export.save(found.program, io.BytesIO())
        result = found.program.module()(torch.eye(6))
        assert type(result["most"]) is tuple and result["nothing"] is None

    def test_distributions(self) -> None:
        """Their parameters are what is returned, by their names; samples that are checked by value are traced, too."""

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Any:
                one = torch.distributions.Normal(x, x.exp(), validate_args=True)
                rows = torch.distributions.Independent(one, 1)
                kinds = torch.distributions.Categorical(logits=x)
                return {"rows": rows, "kinds": kinds, "likely": one.log_prob(x)}

        found = capture(Module(), {"x": InputSpec((BATCH, 6))})
        names = ["rows.base_dist.loc", "rows.base_dist.scale", "kinds.logits", "likely"]
        assert [record.name for record in found.outputs] == [f"output.{name}" for name in names]
        assert "output.kinds is a Categorical; its parameters are what is returned" in found.notes
        torch.export.save(found.program, io.BytesIO())
        result = found.program.module()(torch.eye(6))
        torch.testing.assert_close(result["rows"]["base_dist"]["scale"], torch.eye(6).exp())

    def test_caches_of_transformers(self) -> None:
        """A decoder as its configuration makes it: no keys and values among the outputs, and the setting stays."""
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
        model = transformers.GPT2LMHeadModel(config)
        found = capture(model, {"input_ids": InputSpec((BATCH, DimRange(2, 6, 9, "t")), "int64", (0, 49))})
        assert [record.name for record in found.outputs] == ["output.logits"]
        assert config.use_cache is True

    def test_a_cache_that_comes_all_the_same(self) -> None:
        """It is left out with a note."""
        transformers = pytest.importorskip("transformers")

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Any:
                cache = transformers.DynamicCache()
                cache.update(x[:, None], x[:, None], 0)
                return {"y": x + 1, "past": cache}, (x, cache)

        found = capture(Module(), {"x": InputSpec((BATCH, 4, 8))})
        assert [record.name for record in found.outputs][:2] == ["output.0.y", "output.1.0"]
        assert any(note.startswith("output.0.past is a DynamicCache") for note in found.notes)
