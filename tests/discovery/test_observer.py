"""What the observer sees in real trainings, and what it leaves alone."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
import torch
from support.watching import Model, Watch, fit, loader
from torch.utils import _pytree as pytree

from lightning_trt_windows.discovery.carried import carried, restore
from lightning_trt_windows.discovery.observations import (
    MOST_CONSTANTS,
    MOST_SHAPES,
    Observation,
    SeenConstant,
    SeenObject,
    SeenTensor,
)
from lightning_trt_windows.discovery.observer import Observer, batch_sizes
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.modules.containers import Node

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*"),
]


class Net(torch.nn.Module):
    """Takes anything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: Any, *rest: Any, **more: Any) -> Any:
        """Gives it back."""
        return x


class Doubler(torch.nn.Module):
    """A forward that TorchScript can read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A layer and a function of another module."""
        return torch.nn.functional.relu(self.layer(x))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Not forward."""
        return x


def watched(*calls: tuple[Any, ...], stage: str = "train", module: torch.nn.Module | None = None) -> Observer:
    """An observer that saw these positional arguments."""
    module, observer = module or Net(), Observer()
    observer.attach(module)
    observer.stage(stage)
    for args in calls:
        module(*args)
    observer.detach()
    return observer


def shapes(observations: tuple[Observation, ...]) -> list[tuple[str, int, tuple[int, ...]]]:
    """Stage, number of calls and shape of the first argument."""
    return [(o.stage, o.count, o.args[0].shape) for o in observations]


def test_a_training_is_counted_by_loader_and_size() -> None:
    """The smaller last batch, validation and its sanity check included."""
    observer = fit(Model(), loader(3 * 8 + 5, 8), loader(2 * 6, 6))
    assert shapes(observer.calls()) == [
        ("sanity", 2, (6, 4)),
        ("train", 3, (8, 4)),
        ("train", 1, (5, 4)),
        ("val", 2, (6, 4)),
    ]
    assert observer.loader_sizes == {"sanity": {6}, "train": {8}, "val": {6}}
    assert observer.notes == []


def test_the_number_of_the_batch_is_kept() -> None:
    """An error can name the batch although forward ran twice in each."""

    class Twice(Model):
        def step(self, batch: Any) -> torch.Tensor:
            self(batch[0])
            return super().step(batch)

    observer = fit(Twice(), loader(3 * 8 + 5, 8))
    assert [(o.count, o.first) for o in observer.calls()] == [(6, 1), (2, 4)]


def test_16_bits_are_noted_as_float32_where_that_is_asked_for() -> None:
    """Also by a resumed training, in containers and in submodules; other types stay as they are."""
    module = torch.nn.Linear(4, 2)
    observer = Observer(as_float32=True)
    state = carried(observer)
    restore(observer, state)
    observer.attach(module)
    observer.stage("train")
    table = observer.tables["call", "train"]
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        table.add(({"x": torch.ones(3, 4, dtype=dtype)}, torch.ones(2, dtype=torch.int64)), {})
    observer.detach()
    (seen,) = observer.calls()
    assert seen.count == 3
    assert seen.args == ({"x": SeenTensor((3, 4), "float32")}, SeenTensor((2,), "int64", (1, 1)))
    assert all(part.as_float32 for part in observer.parts.values())


def test_a_redirected_forward_is_not_taken_for_a_call() -> None:
    """DDP lends ``forward`` to the step: ``(batch, batch_idx)`` must not be recorded, the real calls must."""
    module = Model()
    observer = fit(module, loader(2 * 8 + 3, 8), loader(6, 6), strategy="ddp", devices=1)
    assert shapes(observer.calls()) == [
        ("sanity", 1, (6, 4)),
        ("train", 2, (8, 4)),
        ("train", 1, (3, 4)),
        ("val", 1, (6, 4)),
    ]
    assert "forward" not in module.__dict__ or module.__dict__["forward"].__func__ is Model.forward


def test_a_step_that_calls_forward_past_the_hooks_is_seen() -> None:
    """``self.forward(x)`` runs no hooks, and people write it."""

    class Direct(Model):
        def step(self, batch: Any) -> torch.Tensor:
            return self.forward(batch[0].flatten(1)).sum()

    assert shapes(fit(Direct(), loader(8, 8)).calls()) == [("train", 1, (8, 4))]


def test_batches_are_recorded_where_forward_is_never_called() -> None:
    """The steps use a submodule."""

    class Submodule(Model):
        def step(self, batch: Any) -> torch.Tensor:
            return self.layer(batch[0]).sum()

    observer = fit(Submodule(), loader(8 + 3, 8))
    assert observer.calls() == ()
    assert [(o.count, o.args[0][0].shape, o.args[0][1].dtype) for o in observer.batches()] == [
        (1, (8, 4), "int64"),
        (1, (3, 4), "int64"),
    ]


def test_training_comes_out_the_same_to_the_last_bit() -> None:
    """Weights, and the random numbers that come next."""
    outcomes = []
    for watch in (True, False):
        torch.manual_seed(7)
        module = Model()
        fit(module, loader(40, 8, shuffle=True), loader(8, 8), **({} if watch else {"callbacks": []}))
        outcomes.append([*(p.detach().clone() for p in module.parameters()), torch.rand(3)])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes))


def test_nothing_is_left_behind() -> None:
    """The instance, its class and its hooks are what they were; a forward of the instance's own comes back."""
    module, observer = Net(), Observer()
    before = dict(module.__dict__)
    observer.attach(module)
    assert module.__dict__ != before
    observer.detach()
    observer.detach()
    assert module.__dict__ == before

    own: Callable[..., Any] = lambda x: x  # noqa: E731 -- as people patch it in
    module.forward = own  # type: ignore[method-assign]  # what is tested
    observer.attach(module)
    observer.detach()
    assert module.__dict__["forward"] is own


def test_a_forward_that_somebody_else_put_in_place_stays() -> None:
    """Whoever replaced the stand-in while watching knows better."""
    module, observer = Net(), Observer()
    observer.attach(module)
    other = module.__dict__["forward"] = lambda x: x
    observer.detach()
    assert module.__dict__["forward"] is other


def test_attaching_again_moves_the_observer() -> None:
    """A second fit is recorded once, not twice."""
    first, second, observer = Net(), Net(), Observer()
    observer.attach(first)
    observer.attach(first)
    observer.stage("train")
    first(torch.ones(2))
    assert [o.count for o in observer.calls()] == [1]
    observer.attach(second)
    assert "forward" not in first.__dict__


def test_a_method_that_is_missing_is_the_users_mistake() -> None:
    """Said at once, not after the training."""
    with pytest.raises(ConfigurationError, match="Net has no method 'predict_stepp'"):
        Observer(method="predict_stepp").attach(Net())


def test_any_method_can_be_watched() -> None:
    """Methods have no hooks; it is all the same to the observer."""
    module, observer = Doubler(), Observer(method="encode")
    observer.attach(module)
    module(torch.ones(1, 4))
    module.encode(torch.ones(2, 4))
    assert [o.args[0].shape for o in observer.calls()] == [(2, 4)]


def test_a_submodule_can_be_watched() -> None:
    """By its path; what it receives is what the steps give it, and it is left as it was."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Sequential(torch.nn.Linear(6, 2)))
    before = dict(vars(module[1]))
    observer = Observer(method="1.0")
    observer.attach(module)
    module(torch.rand(5, 2, 3))
    observer.detach()
    assert observer.calls()[0].args == (SeenTensor((5, 6), "float32"),)
    assert dict(vars(module[1])) == before
    assert "forward" not in vars(module[1][0])


def test_calls_before_the_first_stage_count_only_alone() -> None:
    """Model summaries run forward on an example before anything is fed."""
    module, observer = Net(), Observer()
    observer.attach(module)
    module(torch.ones(1))
    assert [o.stage for o in observer.calls()] == [""]
    observer.stage("train")
    module(torch.ones(2))
    assert [o.stage for o in observer.calls()] == ["train"]


def test_trial_runs_of_the_batch_size_finder_do_not_count(tmp_path: Path) -> None:
    """Lightning tries larger and larger batches before training, with the callbacks set aside."""
    from lightning.pytorch.callbacks import BatchSizeFinder

    class Data(pl.LightningDataModule):
        batch_size = 2

        def train_dataloader(self) -> Any:
            return loader(64, self.batch_size)

        val_dataloader = train_dataloader

    observer, module, data = Observer(), Model(), Data()
    callbacks = [Watch(observer), BatchSizeFinder(steps_per_trial=1, max_trials=3)]
    settings = {"callbacks": callbacks, "enable_checkpointing": True, "default_root_dir": tmp_path, "max_steps": 2}
    fit(module, data, observer=observer, **settings)
    assert data.batch_size == 8
    assert {o.args[0].shape for o in observer.calls()} == {(data.batch_size, 4)}


def test_nested_arguments_are_described() -> None:
    """Containers stay, tensors become shapes and dtypes, flags their values."""

    class Pair(NamedTuple):
        a: Any
        b: Any

    @dataclass
    class Batch:
        image: Any
        flag: bool

    module, observer = Net(), Observer()
    observer.attach(module)
    module({"x": torch.ones(2, 3), "n": [None, 1.5]}, Pair(torch.ones(1).half(), "text"), b=Batch(torch.ones(4), True))
    (call,) = observer.calls()
    assert call.args == (
        {"x": SeenTensor((2, 3), "float32"), "n": [SeenConstant((None,)), SeenConstant((1.5,))]},
        Pair(SeenTensor((1,), "float16"), SeenConstant(("text",))),
    )
    assert call.kwargs == {
        "b": Node(Batch, ("image", "flag"), (SeenTensor((4,), "float32"), SeenConstant((True,)))),
    }


def test_values_of_constants_are_kept_by_type() -> None:
    """``True`` is not 1, 1 is not 1.0, and not-a-number equals itself."""
    observer = watched(*[(value,) for value in (True, 1, 1.0, float("nan"), float("nan"), 1)])
    assert [repr(value) for o in observer.calls() for value in o.args[0].values] == ["True", "1", "1.0", "nan"]
    observer = watched(*[(number,) for number in range(100)])
    assert observer.calls()[0].args[0].values == tuple(range(MOST_CONSTANTS))


def test_integers_keep_their_range() -> None:
    """Looked at in the 1st, 2nd, 4th, ... call; floats and flags have none."""
    observer = watched(*[(torch.tensor([3, value]),) for value in (5, 9, 100, 0)])
    assert observer.calls()[0].args[0].values == (0, 9)
    observer = watched((torch.ones(2),), (torch.ones(2, dtype=torch.bool),), (torch.ones(0, dtype=torch.int64),))
    assert [o.args[0].values for o in observer.calls()] == [None, None, None]


def test_what_cannot_be_taken_apart_is_named() -> None:
    """By class, for the error that comes when ranges are derived."""

    class Graph:
        pass

    observer = watched((Graph(),), (["a"] * 1000,), (torch.eye(3).to_sparse(),))
    assert [type(o.args[0]) for o in observer.calls()] == [SeenObject] * 3
    whats = [o.args[0].what for o in observer.calls()]
    assert whats[0].endswith(".Graph")
    assert whats[1:] == ["a list of 1000 values of str", "a tensor of layout torch.sparse_coo"]


def test_values_that_cannot_be_compared_are_left_out() -> None:
    """Not every integer dtype has a smallest value to ask for; the shape is recorded all the same."""
    observer = watched((torch.ones(2).to(torch.uint16),), (torch.ones(3, dtype=torch.int64),))
    assert [o.args[0].shape for o in observer.calls()] == [(2,), (3,)]
    assert observer.notes == []


def test_a_registered_class_whose_context_holds_tensors_is_not_taken_apart() -> None:
    """Its context would keep the batch alive; and the numbers of other tensors stay right."""

    class Sliced:
        def __init__(self, data: Any, slices: Any) -> None:
            self.data, self.slices = data, slices

    pytree.register_pytree_node(Sliced, lambda s: ([s.data], s.slices), lambda c, slices: Sliced(*c, slices))
    observer = watched((Sliced(torch.tensor([7]), torch.ones(2)), torch.tensor([1, 2])))
    (call,) = observer.calls()
    assert isinstance(call.args[0], SeenObject)
    assert call.args[1].values == (1, 2)
    observer = watched((Sliced(torch.tensor([7]), "by two"), torch.tensor([1, 2])))
    (call,) = observer.calls()
    assert (call.args[0].children[0].values, call.args[0].context, call.args[1].values) == ((7, 7), "by two", (1, 2))


def test_no_batch_is_kept_alive() -> None:
    """Nor anything else that was passed."""

    class Graph:
        pass

    module, observer = Net(), Observer()
    observer.attach(module)
    observer.stage("train")
    alive = []
    for _ in range(3):
        x, graph = torch.arange(6), Graph()
        alive += [weakref.ref(x), weakref.ref(graph)]
        observer.batch((x, graph))
        module({"x": x}, graph, again=x)
    del x, graph
    gc.collect()
    assert [ref() for ref in alive] == [None] * 6


def test_a_failure_of_the_observer_does_not_reach_training() -> None:
    """A class that raises when looked at is a note, once."""

    class Shy(dict[str, Any]):
        def values(self) -> Any:
            raise RuntimeError("do not look")

    observer = watched((Shy(),), (Shy(),), (torch.ones(1),))
    assert observer.notes == ["a call of forward was not recorded: RuntimeError: do not look"]
    assert [o.args[0].shape for o in observer.calls()] == [(1,)]


def test_memory_is_bounded_and_ranges_stay_right() -> None:
    """Past the limit a new combination is remembered only where it widens something."""
    module, observer = Net(), Observer()
    observer.attach(module)
    observer.stage("train")
    for size in range(MOST_SHAPES):
        module(torch.empty(100 + size))
    for size in (150, 101, 99, 100 + MOST_SHAPES, 99, 120):
        module(torch.empty(size, 1) if size == 120 else torch.empty(size))
    seen = [o.args[0].shape for o in observer.calls()]
    assert len(seen) == MOST_SHAPES + 3
    assert seen[-3:] == [(99,), (100 + MOST_SHAPES,), (120, 1)]


def test_copies_and_pickles_of_the_module_are_plain() -> None:
    """An averaged copy or a spawned process runs its own forward, unwatched."""
    module, observer = Doubler(), Observer()
    observer.attach(module)
    copied, restored = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    for other in (copied, restored):
        assert type(other.forward) is type(Doubler().forward)
        assert other.forward.__self__ is other
        other(torch.ones(1, 4))
    assert observer.calls() == ()


def test_the_stand_in_looks_like_the_method() -> None:
    """To ``inspect`` and to Lightning's question whether a method is overridden."""
    from lightning.pytorch.utilities.model_helpers import is_overridden

    module, observer = Model(), Observer(method="predict_step")
    overridden = is_overridden("predict_step", module)
    observer.attach(module)
    assert is_overridden("predict_step", module) is overridden
    assert inspect.signature(module.predict_step) == inspect.signature(Model().predict_step)
    assert inspect.ismethod(module.predict_step)


def test_the_type_of_the_stand_in_makes_methods() -> None:
    """As that of a method does: ``type(m.forward)(function, m)`` is how people patch, and ``WeakMethod`` comes back."""
    module, observer = Doubler(), Observer()
    plain = module.forward
    observer.attach(module)
    assert module.forward == plain
    assert plain == module.forward
    assert hash(module.forward) == hash(plain)
    assert weakref.WeakMethod(module.forward)() == plain
    patched = type(module.forward)(lambda self, x: (self, x), module)
    assert type(patched) is types.MethodType
    assert patched(1) == (module, 1)


def test_who_has_kept_the_stand_in_calls_the_method() -> None:
    """Nothing is recorded by it while the observer looks away; it does not keep the module alive afterwards."""
    module, observer = Net(), Observer()
    observer.attach(module)
    observer.stage("train")
    kept = module.forward
    with observer.looking_away():
        assert "forward" not in vars(module)
        assert kept(1) == 1
    assert module.forward is kept
    assert observer.calls() == ()
    observer.detach()
    assert kept(2) == 2
    assert kept.__self__ is module
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    with pytest.raises(ReferenceError, match="no longer exists"):
        kept(3)


def test_looking_away_from_what_is_not_watched() -> None:
    """It is not watched afterwards either."""
    module, observer = Net(), Observer()
    with observer.looking_away():
        pass
    observer.attach(module)
    observer.detach()
    with observer.looking_away():
        pass
    assert "forward" not in vars(module)


def test_a_stand_in_that_somebody_has_wrapped_records_a_call_once() -> None:
    """A ``forward`` that was put around it is what is watched from the next time on, with what that receives."""
    module, observer = Net(), Observer()
    observer.attach(module)
    observer.stage("train")
    inner = module.forward
    module.forward = lambda x: inner(x[:1])  # type: ignore[method-assign]  # what is tested
    with observer.looking_away():
        module(torch.ones(3))
    module(torch.ones(3))
    assert [(o.count, o.args[0].shape) for o in observer.calls()] == [(1, (3,))]


class Counter:
    """A backend of ``torch.compile`` that runs what it is given, and counts it."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        """Nothing is compiled."""
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("own", [False, True], ids=["of the class", "of the instance"])
def test_compiled_code_stays_as_it_is_when_the_observer_looks_away(own: bool) -> None:
    """And when it comes again, with a later ``fit``: the stand-in is the same."""
    module, counter = Doubler(), Counter()
    if own:
        module.forward = types.MethodType(lambda self, x: self.layer(x), module)  # type: ignore[method-assign]
    step = torch.compile(lambda x: module(x).sum(), backend=counter, fullgraph=True)
    for _ in range(10):
        observer = Observer()
        observer.attach(module)
        step(torch.ones(2, 4))
        with observer.looking_away():
            assert ("forward" in vars(module)) is own
            assert "forward" not in vars(module.layer)
        step(torch.ones(2, 4))
        observer.detach()
    assert counter.graphs == 1
    assert "forward" not in vars(module.layer)


def test_compiled_code_stays_as_it_is_when_parts_do_not_count_any_more() -> None:
    """It asks for their stand-ins, which record nothing, stay for so long, and are taken off in the end."""
    module, counter, observer = Doubler(), Counter(), Observer()
    step = torch.compile(lambda x: module.layer(x).sum(), backend=counter, fullgraph=True)
    observer.attach(module)
    observer.stage("train")
    for _ in range(3):
        step(torch.ones(2, 4))
        module(torch.ones(2, 4))
        assert observer.parts == {}
        with observer.looking_away():
            assert "forward" not in vars(module.layer)
    assert counter.graphs == 1
    observer.detach()
    assert "forward" not in vars(module.layer)


def test_parts_leave_the_module_as_soon_as_they_do_not_count() -> None:
    """Where nothing refers to them: a step calls them for nothing."""
    module, observer = Doubler(), Observer()
    observer.attach(module)
    observer.stage("train")
    assert "forward" in vars(module.layer)
    module(torch.ones(2, 4))
    assert "forward" not in vars(module.layer)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "transform",
    [
        torch.jit.script,
        lambda module: torch.jit.trace(module, torch.ones(2, 4)),
        lambda module: torch.compile(module, fullgraph=True, backend="eager"),
        lambda module: torch.export.export(module, (torch.ones(2, 4),)).module(),
        lambda module: torch.fx.symbolic_trace(module),
    ],
    ids=["script", "trace", "compile", "export", "fx"],
)
def test_graph_capture_works_while_watching(transform: Callable[[torch.nn.Module], Any]) -> None:
    """With the same result, and without symbols in the record."""
    module, observer, x = Doubler(), Observer(), torch.ones(2, 4)
    expected = module(x)
    observer.attach(module)
    assert torch.equal(transform(module)(x), expected)
    assert all(isinstance(size, int) for o in observer.calls() for size in o.args[0].shape)


def test_a_compiled_lightning_module_trains_and_shows_its_batches() -> None:
    """Inside a compiled step nothing of ours is left; batches take the place of calls."""
    module = torch.compile(Model(), backend="eager", fullgraph=True)
    observer = fit(module, loader(16, 8))
    assert observer.calls() == ()
    assert [o.count for o in observer.batches()] == [2]


def test_loaders_are_asked_for_their_batch_size_only() -> None:
    """In lists, dicts and combinations; batch samplers and loaders without a size too."""
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
    from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

    sampler = BatchSampler(SequentialSampler(range(9)), 3, drop_last=False)
    loaders = {"a": [loader(8, 4), DataLoader(range(9), batch_sampler=sampler)], "b": DataLoader([1], batch_size=None)}  # type: ignore[arg-type]
    assert sorted(batch_sizes(loaders)) == [3, 4]
    assert list(batch_sizes(CombinedLoader([loader(8, 4)]))) == [4]
    assert list(batch_sizes(None)) == []
