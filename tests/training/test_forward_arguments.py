"""Trainings whose steps hand all kinds of things to ``forward``: they end well, and an artifact comes out."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from support.lightning_models import trainer
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from lightning_trt_windows import InputSpec, WindowsExport
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.errors import CaptureError, ShapeDiscoveryError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


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
    """Fields that the constructor does not take, and a size that differs in the last batch."""

    items: InitVar[list[Tensor]]
    image: Tensor = field(init=False)
    size: int = field(init=False)

    def __post_init__(self, items: list[Tensor]) -> None:
        self.image, self.size = torch.stack(items), len(items)


@dataclass
class Registered:
    image: Tensor
    target: Tensor


pytree.register_pytree_node(
    Registered,
    lambda v: ([v.image, v.target], None),
    lambda t, _: Registered(*t),
    serialized_type_name="test.Registered",
)


class Base(L.LightningModule):
    """One weight matrix, and whatever a subclass does with it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(
    module: L.LightningModule, tmp_path: Path, collate: Callable[[list[Tensor]], Any] = torch.stack, **options: Any
) -> WindowsExport:
    """The callback after one epoch with batches of 4, 4 and 2 rows."""
    export = WindowsExport(executor="inline", **options)
    data = DataLoader(list(torch.rand(10, 4)), batch_size=4, collate_fn=collate)
    run = trainer(tmp_path, export, max_epochs=1)
    run.fit(module, data)
    assert run.state.finished
    return export


def manifest_of(export: WindowsExport) -> Manifest:
    """Of the one artifact that came out."""
    assert export.failures == []
    (artifact,) = export.artifacts
    return artifact.manifest


def inputs_of(export: WindowsExport) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Names and ranges."""
    return [(record.name, record.min, record.max) for record in manifest_of(export).inputs]


class TestBatchClasses:
    """``forward`` is given the batch."""

    class Net(Base):
        """Takes whatever has an image."""

        def forward(self, batch: Any) -> Tensor:
            return self.net(batch.image)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self(batch).pow(2).mean()

    def test_fields_that_check_what_they_are_given(self, tmp_path: Path) -> None:
        """It ended the training with the descriptor's TypeError."""
        export = trained(self.Net(), tmp_path, lambda rows: Validating(image=torch.stack(rows)))  # type: ignore[arg-type]
        assert inputs_of(export) == [("batch.image", (1, 4), (4, 4))]

    def test_fields_that_init_does_not_take(self, tmp_path: Path) -> None:
        """And a size that nothing reads, and that varies."""
        export = trained(self.Net(), tmp_path, Packed)
        assert inputs_of(export) == [("batch.image", (1, 4), (4, 4))]

    def test_classes_registered_without_keys(self, tmp_path: Path) -> None:
        """They are called by their fields."""
        export = trained(self.Net(), tmp_path, lambda rows: Registered(torch.stack(rows), torch.rand(len(rows), 1)))
        assert [name for name, _, _ in inputs_of(export)] == ["batch.image", "batch.target"]

    def test_objects_around_a_mapping(self, tmp_path: Path) -> None:
        """As graphs of PyTorch Geometric are: attributes are looked up in a mapping of a class of its own."""

        class Graph:
            def __init__(self, **held: Any) -> None:
                self.__dict__["store"] = UserDict(held)

            def __getattr__(self, name: str) -> Any:
                return self.__dict__["store"][name]

        export = trained(self.Net(), tmp_path, lambda rows: Graph(image=torch.stack(rows)))
        assert inputs_of(export) == [("batch.store.image", (1, 4), (4, 4))]

    def test_a_size_that_is_read(self, tmp_path: Path) -> None:
        """It is refused by name, and what the message says to do works."""

        class Reads(self.Net):  # type: ignore[name-defined]
            def forward(self, batch: Any) -> Tensor:
                return self.net(batch.image) / batch.size

        export = trained(Reads(), tmp_path, Packed)
        (failure,) = export.failures
        assert isinstance(failure.error, CaptureError)
        assert "batch.size" in str(failure.error) and "inputs={'batch.size': 4}" in str(failure.error)
        (tmp_path / "again").mkdir()
        again = trained(Reads(), tmp_path / "again", Packed, inputs={"batch.size": 4})
        assert inputs_of(again) == [("batch.image", (1, 4), (4, 4))]


class TestCalls:
    """``forward`` is given parts of the batch."""

    def test_keyword_arguments(self, tmp_path: Path) -> None:
        """``forward(**inputs)``, each entry by its name; labels are for the loss."""

        class Net(Base):
            def forward(self, **inputs: Tensor) -> Any:
                out = self.net(inputs["x"])
                return (out - inputs["labels"]).pow(2).mean() if "labels" in inputs else out

            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                return self(**batch)

        collate = lambda rows: {"x": torch.stack(rows), "labels": torch.zeros(len(rows), 1)}  # noqa: E731 -- used once
        export = trained(Net(), tmp_path, collate)
        assert inputs_of(export) == [("x", (1, 4), (4, 4))]
        assert any("labels" in note and "keep" in note for note in manifest_of(export).notes)

    def test_positional_arguments(self, tmp_path: Path) -> None:
        """``forward(*views)``."""

        class Net(Base):
            def forward(self, *views: Tensor) -> Tensor:
                return self.net(views[0]) - self.net(views[1])

            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                return self(batch, batch + 1).pow(2).mean()

        assert [name for name, _, _ in inputs_of(trained(Net(), tmp_path))] == ["views_0", "views_1"]

    class Labelled(Base):
        """Computes its own loss, as models of transformers do."""

        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            out = self.net(x)
            return {"out": out} if labels is None else {"loss": (out - labels).pow(2).mean(), "out": out}

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self(batch, labels=batch.sum(1, keepdim=True))["loss"]

    def test_optional_labels(self, tmp_path: Path) -> None:
        """They are left out with a note, which says how to keep them."""
        export = trained(self.Labelled(), tmp_path)
        assert inputs_of(export) == [("x", (1, 4), (4, 4))]
        (note,) = [note for note in manifest_of(export).notes if "labels" in note]
        assert note.endswith("left out; RangeOptions(keep=['labels']) keeps them")
        assert [record.name for record in manifest_of(export).outputs] == ["output.out"]

    def test_optional_labels_kept(self, tmp_path: Path) -> None:
        """What the note says."""
        export = trained(self.Labelled(), tmp_path, ranges={"keep": ["labels"]})
        assert [name for name, _, _ in inputs_of(export)] == ["x", "labels"]
        assert [record.name for record in manifest_of(export).outputs] == ["output.loss", "output.out"]

    def test_labels_without_which_it_does_not_work(self, tmp_path: Path) -> None:
        """A default that nobody has ever used: they stay inputs."""

        class Net(Base):
            def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
                return (self.net(x) - labels).pow(2)

            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                return self(batch, batch.sum(1, keepdim=True)).mean()

        assert [name for name, _, _ in inputs_of(trained(Net(), tmp_path))] == ["x", "labels"]


class TestForwardThatNoStepCalls:
    """Its inputs are those of the batch, as far as it takes them."""

    class Net(Base):
        """As in Lightning's README: the step flattens what its parts are given, and so does whoever calls forward."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.head(self.net(batch.view(len(batch), -1))).pow(2).mean()

    def test_what_its_first_part_is_given(self, tmp_path: Path) -> None:
        """Where the batch is not what it takes; a note says so."""
        export = trained(self.Net(), tmp_path, lambda rows: torch.stack(rows).view(-1, 2, 2))
        assert inputs_of(export) == [("x", (1, 4), (4, 4))]
        assert "no step calls forward, and the batches do not fit it; x is what net was given" in (
            manifest_of(export).notes
        )

    def test_what_the_network_takes(self, tmp_path: Path) -> None:
        """``forward(*args, **kwargs)`` passes on what it is given: of the batch, what the network has arguments for."""

        class Inner(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x)

        class Net(Base):
            def __init__(self) -> None:
                super().__init__()
                self.net = Inner(4, 1)

            def forward(self, *args: Any, **kwargs: Any) -> Tensor:
                return self.net.forward(*args, **kwargs)

            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                return (self.net.forward(batch["x"]) - batch["future"]).pow(2).mean()

        collate = lambda rows: {"x": torch.stack(rows), "future": torch.zeros(len(rows), 1)}  # noqa: E731 -- used once
        export = trained(Net(), tmp_path, collate)
        assert inputs_of(export) == [("x", (1, 4), (4, 4))]
        assert "forward passes on what it is given; its inputs are those that Inner takes" in manifest_of(export).notes

    def test_what_nothing_fits(self, tmp_path: Path) -> None:
        """The message says where the inputs are from, and its way on works."""

        class Net(self.Net):  # type: ignore[name-defined]
            def forward(self, x: Tensor) -> Tensor:
                return self.net(x[:, :3] * torch.ones(5))

        with pytest.warns(UserWarning, match="No step calls forward"):
            export = trained(Net(), tmp_path)
        (failure,) = export.failures
        assert "No step calls forward, so its inputs were taken from the batches" in str(failure.error)
        (tmp_path / "again").mkdir()
        assert inputs_of(trained(Net(), tmp_path / "again", method="net")) == [("input", (1, 4), (4, 4))]


class TestSubmodules:
    """Modules without a ``forward``."""

    def test_the_one_that_is_called(self, tmp_path: Path) -> None:
        """It is exported, and a note says so."""

        class Net(Base):
            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                return self.net(batch).pow(2).mean()

        export = trained(Net(), tmp_path)
        assert inputs_of(export) == [("input", (1, 4), (4, 4))]
        assert "Net has no forward; net, which its steps call, is what is exported" in manifest_of(export).notes

    class Two(Base):
        """Steps that call two of them."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.head(self.net(batch)).pow(2).mean()

    def test_several(self, tmp_path: Path) -> None:
        """They are named while there is time to write one, and again at the end."""
        with pytest.warns(UserWarning, match="Two has no forward, and its steps call net and head") as told:
            export = trained(self.Two(), tmp_path)
        lines = [str(w.message) for w in told if "has no forward" in str(w.message)]
        assert len(lines) == 2 and "cannot be captured yet" in lines[0]
        (failure,) = export.failures
        assert isinstance(failure.error, ShapeDiscoveryError)
        assert "export one of them: method='net' or method='head'" in str(failure.error)

    def test_one_of_several(self, tmp_path: Path) -> None:
        """What the message says to do."""
        assert inputs_of(trained(self.Two(), tmp_path, method="net")) == [("input", (1, 4), (4, 4))]

    def test_inputs_that_are_given(self, tmp_path: Path) -> None:
        """Of the submodule."""
        export = trained(self.Two(), tmp_path, method="net", inputs={"input": InputSpec((2, 4))})
        assert inputs_of(export) == [("input", (2, 4), (2, 4))]
