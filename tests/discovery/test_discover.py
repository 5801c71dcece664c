"""Which source speaks for which input, with real modules, datamodules and trainings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from support.watching import Model, Rows, Watch, fit, loader
from torch.utils.data import DataLoader, IterableDataset

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.discovery.discover import (
    HasInputSpecs,
    call_arguments,
    discover,
    leaves,
)
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ConfigurationError, ShapeDiscoveryError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
]

BATCH = DimRange(1, 8, 8, name="batch")
SPEC = InputSpec((DimRange(1, 2, 3), 4))


class Data(pl.LightningDataModule):
    """Validation only, in batches of 8 with a last one of 3; counts what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Any] = []

    def prepare_data(self) -> None:
        """Once."""
        self.called.append("prepare_data")

    def setup(self, stage: str) -> None:
        """For each stage."""
        self.called.append(stage)

    def val_dataloader(self) -> Any:
        """Pairs."""
        return loader(2 * 8 + 3, 8, shuffle=True)


class Takes(torch.nn.Module):
    """A module whose forward has the signature of the function given."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.forward = forward


def batches(*rows: Any) -> pl.LightningDataModule:
    """A datamodule whose training loader gives ``rows``, 8 in a batch."""
    return _FromLoader(DataLoader(Rows(list(rows)), batch_size=8))


class _FromLoader(pl.LightningDataModule):
    def __init__(self, train: Any) -> None:
        super().__init__()
        self.train = train

    def train_dataloader(self) -> Any:
        return self.train


def test_a_training_tells_everything() -> None:
    """Callback's way: no datamodule, no example."""
    module = Model()
    found = discover(module, observer=fit(module, loader(3 * 8 + 5, 8), loader(6, 6)))
    assert found.inputs == {"x": InputSpec((BATCH, 4))}
    assert found.sources["x"].kind == "observed"
    assert found.sources["x"].reason == "calls of forward: 4 in train, 1 in val"
    assert found.sources["x"].dims == ("batch: 1 by rule, 8 usual (train 3x8, 1x5; val 1x6), 8 largest", "always 4")
    assert found.notes == ()


def test_explicit_inputs_win_and_need_no_data() -> None:
    """The datamodule is not even set up; the batch gets its name."""
    data = Data()
    found = discover(Model(), inputs={"x": SPEC}, datamodule=data)
    assert found.inputs == {"x": InputSpec((DimRange(1, 2, 3, name="batch"), 4))}
    assert (found.sources["x"].kind, found.sources["x"].reason) == ("argument", "given as inputs")
    assert data.called == []


def test_inputs_are_read_from_yaml() -> None:
    """Mappings with a shape, constants, dotted names."""
    module = Takes(lambda pair, flag, x: x)
    found = discover(
        module,
        inputs={
            "pair.1": {"shape": [4]},
            "pair.0": {"shape": [[1, 2, 3]], "dtype": "int64"},
            "flag": True,
            "x": {"k": SPEC},
        },
    )
    assert list(leaves(found.inputs)) == [
        ("pair.0", InputSpec((DimRange(1, 2, 3, name="batch"),), "int64")),
        ("pair.1", InputSpec((4,))),
        ("flag", True),
        ("x.k", InputSpec((DimRange(1, 2, 3, name="batch"), 4))),
    ]
    assert type(found.inputs["pair"]) is tuple


def test_the_datamodule_speaks_through_input_specs() -> None:
    """Before what is observed, after the user; the Protocol needs no base class."""

    class Said:
        def input_specs(self) -> Mapping[str, Any]:
            return {"x": SPEC, "mask": InputSpec((5,), "bool")}

    assert isinstance(Said(), HasInputSpecs)
    found = discover(Takes(lambda x, mask: x), inputs={"mask": InputSpec((6,), "bool")}, datamodule=Said())
    assert {name: (str(leaf), found.sources[name].kind) for name, leaf in leaves(found.inputs)} == {
        "x": ("float32[1..2..3, 4]", "datamodule"),
        "mask": ("bool[6]", "argument"),
    }
    assert found.sources["x"].reason == "said by Said.input_specs()"


def test_a_datamodule_that_says_it_wrong_is_named() -> None:
    """Its own exception is the cause."""

    class Broken:
        def input_specs(self) -> Any:
            return {"x": self.size}  # type: ignore[attr-defined]  # the mistake

    with pytest.raises(ConfigurationError, match=r"Broken\.input_specs\(\) failed: AttributeError") as caught:
        discover(Model(), datamodule=Broken())
    assert isinstance(caught.value.__cause__, AttributeError)

    class Listing:
        def input_specs(self) -> Any:
            return [SPEC]

    with pytest.raises(
        ConfigurationError, match=r"Listing\.input_specs\(\) must return a mapping by argument of forward"
    ):
        discover(Model(), datamodule=Listing())


def test_a_nested_spec_covers_its_entries_only() -> None:
    """The rest comes from the batches; names that are not there are refused."""
    data = batches(*[{"image": torch.ones(3), "size": torch.ones(2)}] * 11)
    module = Takes(lambda batch: batch)
    found = discover(module, inputs={"batch": {"image": InputSpec((DimRange(1, 2, 4), 3))}}, datamodule=data)
    assert found.inputs == {
        "batch": {
            "image": InputSpec((DimRange(1, 2, 4, name="batch"), 3)),
            "size": InputSpec((DimRange(1, 2, 4, name="batch"), 2)),
        }
    }
    assert {name: source.kind for name, source in found.sources.items()} == {
        "batch.image": "argument",
        "batch.size": "observed",
    }
    with pytest.raises(
        ConfigurationError, match=r"batch\.imgae: batch has only image, size; did you mean 'batch\.image'"
    ):
        discover(module, inputs={"batch.imgae": SPEC}, datamodule=data)


def test_unknown_arguments_are_refused_with_the_nearest() -> None:
    """Of the method that is exported."""
    with pytest.raises(ConfigurationError, match=r"inputs: forward\(x\) has no argument 'xx'; did you mean 'x'"):
        discover(Model(), inputs={"xx": SPEC})
    with pytest.raises(
        ConfigurationError, match="expected an InputSpec, a constant or a container of these, got Tensor"
    ):
        discover(Model(), inputs={"x": torch.ones(3)})
    with pytest.raises(ConfigurationError, match=r"'x\.a' lies inside 'x', which is given as a whole"):
        discover(Model(), inputs={"x": SPEC, "x.a": SPEC})
    with pytest.raises(ConfigurationError, match="has no method 'forwards'"):
        discover(Model(), method="forwards")


def test_dimensions_of_one_name_have_one_range() -> None:
    """Both places are named."""
    specs = {"a": InputSpec((DimRange(1, 2, 3, "n"),)), "b": InputSpec((DimRange(1, 2, 4, "n"),))}
    with pytest.raises(ConfigurationError, match=r"'n' is 1\.\.2\.\.3 in a\.0 and 1\.\.2\.\.4 in b\.0"):
        discover(Takes(lambda a, b: a), inputs=specs)


def test_first_axes_of_different_ranges_are_not_called_one_batch() -> None:
    """Without evidence nothing is guessed."""
    specs = {"a": InputSpec((DimRange(1, 2, 3),)), "b": InputSpec((DimRange(1, 2, 4),))}
    found = discover(Takes(lambda a, b: a), inputs=specs)
    assert [leaf.shape[0].name for _, leaf in leaves(found.inputs)] == [None, None]


def test_an_explicit_constant_replaces_what_was_seen() -> None:
    """``labels`` was a tensor in every call; the artifact takes none."""
    module, observer = Takes(lambda x, labels=None: x), Observer()
    observer.attach(module)
    module(torch.ones(8, 4), labels=torch.ones(8))
    found = discover(module, inputs={"labels": None}, observer=observer)
    assert found.inputs == {"x": InputSpec((BATCH, 4)), "labels": None}


def test_without_training_batches_of_one_loader_tell() -> None:
    """Prepared and set up as a Trainer does it; the first loader that speaks, of the size it says."""
    data = Data()
    found = discover(Model(), datamodule=data)
    assert found.inputs == {"x": InputSpec((BATCH, 4))}
    assert data.called == ["prepare_data", "validate"]
    assert (
        found.sources["x"].reason
        == "no call of forward was seen; in the batches (3 in val) the batch's first element is x"
    )
    assert found.notes == ("shapes are those of the val loader's batches",)


def test_loaders_are_asked_in_the_order_of_deployment() -> None:
    """One that fails or is empty lets the next one speak, and is mentioned."""

    class Several(Data):
        def predict_dataloader(self) -> Any:
            raise AttributeError("predict_set")

        def val_dataloader(self) -> Any:
            return loader(0, 8)

        def test_dataloader(self) -> Any:
            return [loader(8, 8), loader(5, 5, features=4)]

    data = Several()
    found = discover(Model(), datamodule=data)
    assert data.called == ["prepare_data", "predict", "validate", "test"]
    assert "test 1x8, 1x5" in found.sources["x"].dims[0]
    assert found.notes == (
        "shapes are those of the test loader's batches",
        "predict_dataloader failed: AttributeError: predict_set",
        "val_dataloader gave no batch",
    )


def test_the_modules_own_loaders_are_asked_where_there_is_no_datamodule() -> None:
    """Its ``setup`` is not called: it may make new layers."""

    class Own(Model):
        def setup(self, stage: str) -> None:
            raise AssertionError("new layers")

        def train_dataloader(self) -> Any:
            return loader(8, 8)

    assert discover(Own()).inputs == {"x": InputSpec((BATCH, 4))}


def test_preparing_and_setting_up_may_fail() -> None:
    """Data may lie there already; a stage that cannot be set up is passed over."""

    class Offline(Data):
        def prepare_data(self) -> None:
            raise OSError("no network")

        def setup(self, stage: str) -> None:
            if stage == "predict":
                raise ValueError("no stage predict")

        def predict_dataloader(self) -> Any:
            raise AssertionError("not set up")

    found = discover(Model(), datamodule=Offline())
    assert found.notes == (
        "shapes are those of the val loader's batches",
        "prepare_data() failed: OSError: no network",
        "setup('predict') failed: ValueError: no stage predict",
    )


def test_several_loaders_are_drawn_from_as_lightning_does() -> None:
    """One after the other in evaluation, all at once in training, which sees one batch of batches."""
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

    module = Takes(lambda batch: batch)
    for loaders in (
        {"a": loader(8, 8), "b": loader(6, 6)},
        CombinedLoader({"a": loader(8, 8), "b": loader(6, 6)}, "max_size_cycle"),
    ):
        found = discover(module, datamodule=_FromLoader(loaders))
        assert [name for name, _ in leaves(found.inputs)] == ["batch.a.0", "batch.a.1", "batch.b.0", "batch.b.1"]
    found = discover(module, datamodule=_FromLoader([loader(8, 8), loader(6, 6)]))
    assert [name for name, _ in leaves(found.inputs)] == ["batch.0.0", "batch.0.1", "batch.1.0", "batch.1.1"]

    class Evaluates(Data):
        def val_dataloader(self) -> Any:
            return {"a": loader(8, 8), "b": loader(6, 6)}

    found = discover(Model(), datamodule=Evaluates())
    assert "val 1x8, 1x6" in found.sources["x"].dims[0]


def test_a_datamodule_is_not_set_up_anew_while_it_trains() -> None:
    """Setting it up for predicting could take the data from the training that runs; its batches serve."""

    class Predicting(Model):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch[0])

    class Ask(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: pl.LightningModule) -> None:
            self.found = discover(pl_module, datamodule=trainer.datamodule, observer=observer, method="predict_step")

    class Fits(Data):
        train_dataloader = Data.val_dataloader
        predict_dataloader = Data.val_dataloader

    observer, data, ask = Observer(method="predict_step"), Fits(), Ask()
    fit(Predicting(), data, observer=observer, callbacks=[Watch(observer), ask])
    assert data.called == ["prepare_data", "fit"]
    assert "3 in train" in ask.found.sources["batch.0"].reason


def test_a_loader_that_never_ends_is_left_after_some_batches() -> None:
    """Their number is the caller's."""

    class Endless(IterableDataset[Any]):
        drawn = 0

        def __iter__(self) -> Iterator[Any]:
            while True:
                type(self).drawn += 1
                yield torch.ones(8, 4), 0

    found = discover(
        Model(), datamodule=_FromLoader(DataLoader(Endless(), batch_size=None)), options=RangeOptions(max_batches=5)
    )
    assert found.inputs == {"x": InputSpec((BATCH, 4))}
    assert Endless.drawn <= 6


def test_random_numbers_come_back() -> None:
    """Of torch, NumPy, Python, and of generators given to loaders."""
    generator = torch.Generator()
    data = _FromLoader(loader(16, 8, shuffle=True, generator=generator))

    def draw() -> list[Any]:
        return [
            torch.rand(1).item(),
            float(np.random.rand()),
            random.random(),
            torch.rand(1, generator=generator).item(),
        ]

    def setup(stage: str) -> None:
        torch.rand(1), np.random.rand(), random.random()

    data.setup = setup  # type: ignore[method-assign]  # a setup that draws
    module = Model()
    outcomes = []
    for look in (True, False):
        for seed in (torch.manual_seed, np.random.seed, random.seed, generator.manual_seed):
            seed(3)
        if look:
            discover(module, datamodule=data)
        outcomes.append(draw())
    assert outcomes[0] == outcomes[1]


def test_batches_pass_the_transfer_hooks() -> None:
    """Of the datamodule where it has them, else of the module."""

    class Flattening(Model):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0].repeat(1, 2), batch[1]

    assert discover(Flattening(), datamodule=Data()).inputs == {"x": InputSpec((BATCH, 8))}

    class DataThatFlattens(Data):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0][:, :2], batch[1]

    assert discover(Flattening(), datamodule=DataThatFlattens()).inputs == {"x": InputSpec((BATCH, 2))}


def test_a_hook_that_needs_a_trainer_is_left_out_and_one_that_fails_is_an_error() -> None:
    """The first with a note, the second with its cause."""

    class Asking(Model):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch if self.trainer.training else None

    found = discover(Asking(), datamodule=Data())
    assert "on_before_batch_transfer needs a Trainer and was left out" in found.notes

    class Failing(Model):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            raise TypeError("a batch has no image")

    with pytest.raises(ShapeDiscoveryError, match=r"Failing\.on_before_batch_transfer failed .*TypeError") as caught:
        discover(Failing(), datamodule=Data())
    assert isinstance(caught.value.__cause__, TypeError)
    module = Failing()
    module.example_input_array = torch.ones(5, 4)
    found = discover(module, datamodule=Data())
    assert found.sources["x"].kind == "example"
    assert found.notes[0].startswith("example_input_array speaks, for the batches cannot: Failing.on_before")


def test_the_example_speaks_last() -> None:
    """A tensor, a tuple or a dict, as Lightning takes it."""
    module = Model()
    module.example_input_array = torch.ones(5, 4)
    found = discover(module)
    assert found.inputs == {"x": InputSpec((DimRange(1, 5, 5, "batch"), 4))}
    assert found.sources["x"].kind == "example"
    for example in ((torch.ones(5, 4),), {"x": torch.ones(5, 4)}):
        module.example_input_array = example
        assert discover(module).inputs == found.inputs
    assert discover(module, datamodule=Data()).sources["x"].kind == "observed"


def test_an_example_that_does_not_fit_forward_is_passed_over() -> None:
    """The error says why; one that looks like the batches changes nothing."""
    module = Model()
    module.example_input_array = (torch.ones(5, 4), torch.ones(5))
    with pytest.raises(
        ShapeDiscoveryError, match=r"example_input_array does not fit forward\(x\): too many positional"
    ):
        discover(module)
    module.example_input_array = torch.ones(5, 4)
    assert discover(module, datamodule=Data()).sources["x"].kind == "observed"


def test_an_example_corrects_batches_that_are_worked_on_before_forward() -> None:
    """Batches hold images, forward takes them flat; the batch size is still the loader's."""

    class Flat(Model):
        def step(self, batch: Any) -> torch.Tensor:
            return self.layer(batch[0].flatten(1)).sum()

    module = Flat()
    module.example_input_array = torch.ones(1, 4)
    rows = [(torch.ones(2, 2), 0)] * 16
    observer = fit(module, DataLoader(Rows(rows), batch_size=8))
    found = discover(module, observer=observer)
    assert found.inputs == {"x": InputSpec((BATCH, 4))}
    assert found.notes == (
        "example_input_array is what forward takes, not the batches as they are: "
        "x is float32[1, 4], in the batches float32[8, 2, 2]",
    )


def test_an_example_speaks_where_arguments_have_no_names() -> None:
    """``forward(*args, **kwargs)`` may pass them on to what does not take all that a batch has."""
    module: Any = Takes(lambda *args, **kwargs: args)
    module.example_input_array = (torch.ones(1, 4),)
    observer = Observer()
    observer.stage("train")
    observer.batch({"x": T, "target": U})
    found = discover(module, observer=observer)
    assert [name for name, _ in leaves(found.inputs)] == ["args.0"]
    assert "nothing tells which of their entries are its arguments" in found.notes[0]


class Named(NamedTuple):
    """A batch of a class of its own."""

    y: Any
    x: Any


@dataclass
class Record:
    """Likewise."""

    y: Any
    x: Any


T, U = torch.ones(8, 4), torch.ones(8, 2)


def takes_record(record: Record) -> Any:
    """By annotation."""


def takes_named(named: Named) -> Any:
    """Likewise."""


def takes_a_tensor(batch: torch.Tensor, *args: Any) -> Any:
    """By annotation, whatever it is called."""


def takes_a_tensor_by_name(image: torch.Tensor) -> Any:
    """By an annotation that is a string."""


def takes_many(x: Any, mask: Any = None, labels: Any = None) -> Any:
    """By names."""


@pytest.mark.parametrize(
    ("forward", "batch", "names", "how"),
    [
        (lambda x: x, T, ["x"], "the whole batch is x"),
        (lambda x: x, (T, U), ["x"], "the batch's first element is x"),
        (lambda x: x, [T], ["x"], "the batch's first element is x"),
        (lambda x=None: x, (T, U), ["x"], "the batch's first element is x"),
        (lambda a, b: a, (T, U, T), ["a", "b"], "the batch's first elements in order are a, b"),
        (lambda a, b: a, ((T, U), U), ["a.0", "a.1", "b"], "the batch's first elements in order are a, b"),
        (lambda batch: batch, (T, U), ["batch.0", "batch.1"], "the whole batch is batch"),
        (lambda data: data, {"x": T, "y": U}, ["data.x", "data.y"], "the whole batch is data"),
        (lambda x: x, {"y": U, "x": T}, ["x"], "the batch's entries of the same names are x"),
        (
            takes_many,
            {"labels": U, "mask": U, "x": T},
            ["x", "mask"],
            "the batch's entries of the same names are x, mask, labels",
        ),
        (lambda x: x, Named(U, T), ["x"], "the batch's entries of the same names are x"),
        (lambda a: a, Named(T, U), ["a"], "the batch's first element is a"),
        (takes_named, Named(U, T), ["named.y", "named.x"], "the whole batch is named"),
        (lambda x: x, Record(U, T), ["x"], "the batch's entries of the same names are x"),
        (takes_record, Record(U, T), ["record.y", "record.x"], "the whole batch is record"),
        (takes_a_tensor, Record(T, U), ["batch"], "the batch's first tensor, x, is batch"),
        (takes_a_tensor, (T, U), ["batch"], "the batch's first element is batch"),
        (takes_a_tensor, T, ["batch"], "the whole batch is batch"),
        (takes_a_tensor_by_name, {"label": U, "x": T}, ["image"], "the batch's first tensor, x, is image"),
        (lambda **batch: batch, {"x": T, "y": U}, ["batch.x", "batch.y"], "the batch's entries are **batch"),
        (lambda *args: args, T, ["args.0"], "the whole batch is the first of *args"),
        (
            lambda batch, batch_idx, dataloader_idx=0: batch,
            (T, U),
            ["batch.0", "batch.1", "batch_idx"],
            "the whole batch is batch",
        ),
    ],
)
def test_batches_are_mapped_to_the_signature(forward: Any, batch: Any, names: list[str], how: str) -> None:
    """By names, else in order; the reason says how."""
    observer = Observer()
    observer.stage("train")
    observer.batch(batch)
    found = discover(Takes(forward), observer=observer)
    assert [name for name, _ in leaves(found.inputs)] == names
    assert next(iter(found.sources.values())).reason.endswith(how)


@pytest.mark.parametrize(
    ("forward", "batch", "message"),
    [
        (lambda a, b: a, T, r"forward\(a, b\) also needs b"),
        (lambda a, b: a, (T,), r"forward\(a, b\) also needs b"),
        (lambda a, b: a, {"c": T, "d": T}, "a batch with the entries c, d does not fit"),
        (lambda *args: args, (T, U), r"forward\(\*args\) does not say what it takes"),
        (lambda a: a, (), "nothing in it"),
    ],
)
def test_batches_that_do_not_fit_are_an_error(forward: Any, batch: Any, message: str) -> None:
    """With the signature, and what to write."""
    observer = Observer()
    observer.stage("train")
    observer.batch(batch)
    with pytest.raises(ShapeDiscoveryError, match=message) as caught:
        discover(Takes(forward), observer=observer)
    assert "WindowsExport(inputs={" in str(caught.value)


def test_variadic_arguments_that_were_observed_are_inputs() -> None:
    """A tuple and a dict under their names, which make a call again; the user names keywords directly."""

    def forward(x: Any, *args: Any, scale: float = 1.0, **more: Any) -> Any:
        return x

    module, observer = Takes(forward), Observer()
    observer.attach(module)
    module(T, U, T, z=T)
    found = discover(module, inputs={"z": InputSpec((BATCH, 4), "float16")}, observer=observer)
    assert [(name, str(leaf)) for name, leaf in leaves(found.inputs)] == [
        ("x", "float32[1..8..8, 4]"),
        ("args.0", "float32[1..8..8, 2]"),
        ("args.1", "float32[1..8..8, 4]"),
        ("more.z", "float16[1..8..8, 4]"),
    ]
    args, kwargs = call_arguments(module.forward, {"x": 1, "args": (2, 3), "more": {"z": 4}})
    assert (args, kwargs) == ((1, 2, 3), {"z": 4})


def test_a_step_method_is_described_by_its_own_loader() -> None:
    """Predicting takes other batches than training."""

    class Predicts(Data):
        def predict_dataloader(self) -> Any:
            return DataLoader(Rows([torch.ones(4)] * 8), batch_size=8)

    class Predicting(Model):
        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return self(batch).softmax(1)

    module = Predicting()
    observer = fit(module, loader(8, 8), observer=Observer(method="predict_step"))
    found = discover(module, datamodule=Predicts(), observer=observer, method="predict_step")
    assert found.inputs == {"batch": InputSpec((BATCH, 4)), "batch_idx": 0}
    assert "batch_idx was 0 in every call and is baked in" in found.notes


def test_options_reach_the_ranges() -> None:
    """As one value."""
    found = discover(Model(), datamodule=Data(), options=RangeOptions(caps={"batch": 4}))
    assert found.inputs == {"x": InputSpec((DimRange(1, 4, 4, "batch"), 4))}


def test_a_symbol_that_a_program_insists_on_is_fixed_everywhere() -> None:
    """At the size it was tuned for, in the specs, the reasons and the notes; what was asked for is told apart."""
    module, observer = Takes(lambda ids, mask: ids), Observer()
    observer.attach(module)
    for length in (5, 9, 7):
        module(torch.ones(8, length), torch.ones(8, length))
    found = discover(module, observer=observer)
    assert found.asked_for("dim1") == ()
    fixed = found.resized("dim1", lambda dim: dim.opt, "the recurrence is unrolled")
    assert [str(leaf) for _, leaf in leaves(fixed.inputs)] == ["float32[1..8..8, 7]"] * 2
    assert fixed.sources["mask"].dims[1].endswith("; static at 7: the recurrence is unrolled")
    assert fixed.sources["mask"].dims[0] == found.sources["mask"].dims[0]
    assert fixed.notes == ("dim1 (ids.1, mask.1) is static at 7: the recurrence is unrolled",)
    asked = discover(module, inputs={"ids": InputSpec((8, DimRange(5, 6, 9)))}, observer=observer)
    assert asked.asked_for("dim1") == ("ids.1",)
    assert [str(leaf) for _, leaf in leaves(asked.inputs)] == ["float32[8, 5..6..9]"] * 2


def test_when_nothing_speaks_the_error_says_what_was_tried_and_what_to_write() -> None:
    """With the names of this forward."""
    with pytest.raises(ShapeDiscoveryError) as caught:
        discover(Takes(lambda image, mask, scale=1: image))
    assert str(caught.value) == (
        "nothing tells the shape of image, mask of Takes.forward(image, mask, scale=1):\n"
        "  - no call of forward and no batch was seen in training\n"
        "  - there is no datamodule to ask\n"
        "  - example_input_array is not set\n"
        'Say it: WindowsExport(inputs={"image": InputSpec(shape=(DimRange(1, 8, 32), 3, 224, 224), dtype="float32"), '
        '"mask": InputSpec(shape=(DimRange(1, 8, 32), 3, 224, 224), dtype="float32")}), with your shapes'
    )
    with pytest.raises(ShapeDiscoveryError, match="train_dataloader gave no batch"):
        discover(Model(), datamodule=_FromLoader(loader(0, 8)))
    with pytest.raises(ShapeDiscoveryError, match="nothing tells the shape of mask"):
        discover(Takes(lambda x, mask: x), inputs={"x": SPEC})


def test_batches_do_not_show_what_a_submodule_gets() -> None:
    """What the module makes of a batch before is not known: calls that were seen tell, or the user."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    with pytest.raises(ShapeDiscoveryError, match=r"\.1\(input\):\n.*\n  - batches and examples are given to the mod"):
        discover(net, datamodule=Data(), method="1")
    observer = Observer(method="1")
    observer.attach(net)
    observer.stage("train")
    net(torch.rand(6, 4))
    assert discover(net, observer=observer, method="1").inputs["input"].at("max") == (6, 3)


def test_notes_of_the_observer_are_passed_on() -> None:
    """What it failed at may explain what is missing."""
    observer = Observer()
    observer.notes.append("a call of forward was not recorded: RuntimeError: no")
    found = discover(Model(), inputs={"x": SPEC}, observer=observer)
    assert found.notes == ("a call of forward was not recorded: RuntimeError: no",)


def test_compiled_modules_have_their_own_signature() -> None:
    """What torch.compile returns takes *args; the arguments are those of the module it wraps."""
    module: Any = torch.compile(Takes(lambda left, right: left + right))
    found = discover(module, datamodule=batches((torch.zeros(4), torch.zeros(4))))
    assert list(found.inputs) == ["left", "right"]


def test_shapes_as_plain_tuples() -> None:
    """As every other exporter takes them: static, of the type that was seen; an argument that is a tuple stays one."""
    module, observer = Takes(lambda ids, size=None: ids), Observer()
    observer.attach(module)
    module(torch.ones(8, 5, dtype=torch.int64), (3, 4))
    found = discover(module, inputs={"ids": (32, 5), "size": (6, 7)}, observer=observer)
    assert found.inputs == {"ids": InputSpec((32, 5), "int64"), "size": (6, 7)}
    assert discover(module, inputs={"ids": [DimRange(1, 2, 8), 5]}).inputs["ids"] == InputSpec(
        (DimRange(1, 2, 8, "batch"), 5)
    )
