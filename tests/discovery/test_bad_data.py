"""What people read when their data tells nothing, too much or two things: from a datamodule to the message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_trt_windows import DimRange, InputSpec, RangeOptions, export_module
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import ConfigurationError, ShapeDiscoveryError


class Net(nn.Module):
    """Takes rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Data:
    """Batches as they stand there; no class of Lightning's is needed."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def val_dataloader(self) -> Any:
        return DataLoader(list(self.batches), batch_size=None)


def refused(module: nn.Module, datamodule: Any, tmp_path: Path, **options: Any) -> str:
    """The message; nothing is written."""
    with pytest.raises(ShapeDiscoveryError) as caught:
        export_module(module, None, tmp_path / "m.windows.ep", datamodule=datamodule, **options)
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


def test_no_datamodule_and_no_example(tmp_path: Path) -> None:
    """Lists what was looked for, and shows what to write."""
    message = refused(Net(), None, tmp_path)
    assert "there is no datamodule to ask\n  - example_input_array is not set" in message
    assert 'Say it: WindowsExport(inputs={"x": InputSpec(' in message


def test_an_empty_loader(tmp_path: Path) -> None:
    """Names it."""
    assert "val_dataloader gave no batch" in refused(Net(), Data(), tmp_path)


def test_a_loader_that_never_ends() -> None:
    """Is left after as many batches as the options say; nobody waits for it."""

    class Endless(IterableDataset[Tensor]):
        drawn = 0

        def __iter__(self) -> Iterator[Tensor]:
            while True:
                Endless.drawn += 1
                yield torch.zeros(8, 4)

    class Endlessly:
        def val_dataloader(self) -> Any:
            return DataLoader(Endless(), batch_size=None)

    for options, most in ((None, 16), (RangeOptions(max_batches=3), 3)):
        Endless.drawn = 0
        assert discover(Net(), datamodule=Endlessly(), options=options).inputs["x"].at("max") == (8, 4)
        assert Endless.drawn == most


def test_batches_of_differing_structure(tmp_path: Path) -> None:
    """Names the batches and what each has that the others lack."""
    one = torch.zeros(8, 4)

    class Takes(nn.Module):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["x"]

    message = refused(Takes(), Data({"x": one}, {"x": one, "mask": one}), tmp_path)
    assert "the calls of forward differ in structure, and an artifact has one" in message
    assert "val batch 1: nothing" in message
    assert "val batch 2: batch.mask (tensor)" in message


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (torch.zeros(8, 4, 1), r"the number of dimensions of x varies .*\n  - 2: val batch 1\n  - 3: val batch 2"),
        (torch.zeros(8, 4).half(), r"the dtype of x varies .*\n  - float32: val batch 1\n  - float16: val batch 2"),
    ],
)
def test_batches_of_differing_kind(tmp_path: Path, second: Tensor, message: str) -> None:
    """Names the batches of each."""
    with pytest.raises(ShapeDiscoveryError, match=message):
        export_module(Net(), None, tmp_path / "m.windows.ep", datamodule=Data(torch.zeros(8, 4), second))


def test_a_forward_that_takes_anything(tmp_path: Path) -> None:
    """Says that its signature does not tell, and what would."""

    class Anything(nn.Module):
        def forward(self, *args: Tensor) -> Tensor:
            return args[0]

    message = refused(Anything(), Data((torch.zeros(8, 4), torch.zeros(8))), tmp_path)
    assert "forward(*args) does not say what it takes of a batch; give the inputs explicitly" in message


def test_a_required_argument_that_was_never_seen(tmp_path: Path) -> None:
    """Names it, whether batches lack it or only the other arguments are given."""

    class Two(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x * mask

    assert "forward(x, mask) also needs mask" in refused(Two(), Data((torch.zeros(8, 4),)), tmp_path)
    with pytest.raises(ShapeDiscoveryError, match="nothing tells the shape of mask"):
        export_module(Two(), {"x": InputSpec((8, 4))}, tmp_path / "m.windows.ep")


def test_data_outside_what_is_declared() -> None:
    """What was given stands, and notes tell what does not fit it: sizes, values, kinds."""
    observer = Observer()
    observer.stage("train")
    net = Net()
    observer.attach(net)
    net(torch.full((9, 7), 40))
    ids = InputSpec((DimRange(1, 4, 8), 7), "int64", (0, 31))
    found = discover(net, inputs={"x": ids}, observer=observer)
    assert found.inputs["x"].at("max") == (8, 7)
    assert found.notes == (
        "x.0: the sizes 9 were seen and lie outside the given 1..4..8",
        "x is given with values 0 to 31, and 40 to 40 were seen",
    )
    other = discover(net, inputs={"x": InputSpec((DimRange(1, 4, 8),))}, observer=observer)
    assert other.notes == (
        "x is given as float32[1..4..8], and [9, 7] was seen",
        "x is given as float32, and int64 was seen",
    )


def test_a_range_that_is_none(tmp_path: Path) -> None:
    """Is refused where it is written."""
    with pytest.raises(ConfigurationError, match=r"DimRange: expected 1 <= min <= opt <= max, got min=4, opt=2, max=8"):
        InputSpec((DimRange(4, 2, 8), 4))
