"""What an entry of the zoo is: a model, and the batches that a loader would give it. No shape is written by hand."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from lightning_trt_windows.artifact.shapes import InputTree
from lightning_trt_windows.discovery.arguments import map_batch
from lightning_trt_windows.discovery.discover import call_arguments
from lightning_trt_windows.discovery.options import RangeOptions

__all__ = ["ZOO", "Batches", "Entry", "images", "rows", "sane", "series", "tokens", "zoo"]

BATCH = (4, 4, 3)
"""Sizes of the batches of an entry: the last one is smaller, as at the end of an epoch."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the zoo."""

    name: str
    make: Callable[[], nn.Module]
    """Builds the module, with random weights."""
    batches: Callable[[], Sequence[Any]]
    """What its loader gives."""
    group: str
    """Where the architecture is from."""
    fast: bool = False
    """Part of the subset that every run of the tests exports."""
    refused: str | None = None
    """Pattern of the message, where there is a good reason for no artifact."""
    options: RangeOptions | None = None
    """How ranges are derived, where the defaults do not do."""
    inputs: Mapping[str, InputTree] | None = None
    """Inputs given by hand: only where nobody could derive them."""
    method: str = "forward"
    """What is exported."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the export."""
    repair: Callable[[Any], None] = lambda arguments: None
    """Makes random arguments possible ones, in place: an edge joins nodes that are there."""
    tolerance: float | None = None
    """Relative norm of the difference to eager; by default what the dtype of the outputs allows."""

    def module(self) -> nn.Module:
        """The module, the same each time, with weights that make every layer count."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        return sane(self.make(), self.batches(), self.method).eval()

    def datamodule(self) -> Batches:
        """The data, the same each time."""
        torch.manual_seed(zlib.crc32(self.name.encode()) + 1)
        return Batches(self.batches())


ZOO: dict[str, Entry] = {}
"""Every entry by its name."""


def zoo(
    group: str, batches: Callable[[], Sequence[Any]], **fields: Any
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Enter a function that builds a model, under its own name."""

    def enter(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        name = make.__name__
        assert name not in ZOO, f"two entries are called {name}"
        ZOO[name] = Entry(name=name, make=make, batches=batches, group=group, **fields)
        return make

    return enter


class Batches(L.LightningDataModule):
    """Gives prepared batches: what a DataLoader with a collate function of the model's own would."""

    def __init__(self, batches: Sequence[Any]) -> None:
        super().__init__()
        self.loader = _Loader(batches)

    def train_dataloader(self) -> Any:
        return self.loader


class _Loader:
    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches
        self.batch_size = BATCH[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


# --- batches as people have them


def images(*sides: tuple[int, int] | int, channels: int = 3, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """Pairs of images and labels, the images of the batches of one size after the other."""

    def make() -> list[Any]:
        pairs = [(s, s) if isinstance(s, int) else s for s in sides]
        sizes = [pairs[i % len(pairs)] for i in range(max(len(BATCH), len(pairs)))]
        return [
            (torch.randn(BATCH[i % len(BATCH)], channels, *size, dtype=dtype), torch.zeros(BATCH[i % len(BATCH)]))
            for i, size in enumerate(sizes)
        ]

    return make


def rows(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """Tuples of tensors, one for each shape, whose first axis is the batch."""
    return lambda: [tuple(torch.randn(size, *shape, dtype=dtype) for shape in shapes) for size in BATCH]


def series(*lengths: int, channels: int = 1, last: bool = True) -> Callable[[], Any]:
    """Sequences of numbers with labels; each batch is as long as its longest, the channels before or after time."""

    def make() -> list[Any]:
        shapes = [(channels, n) if last else (n, channels) for n in lengths]
        return [
            (torch.randn(BATCH[i % len(BATCH)], *shape), torch.zeros(BATCH[i % len(BATCH)]))
            for i, shape in enumerate(shapes)
        ]

    return make


def tokens(*lengths: int, vocabulary: int = 100, mask: bool = True, **more: Callable[[int], Tensor]) -> Any:
    """Dicts as tokenizers and their collators make them: ``input_ids``, ``attention_mask``, ``labels``."""

    def make() -> list[Any]:
        batches = []
        for i, n in enumerate(lengths):
            size = BATCH[i % len(BATCH)]
            batch: dict[str, Tensor] = {"input_ids": torch.randint(3, vocabulary, (size, n))}
            # both ends of the vocabulary are seen sooner or later
            batch["input_ids"][0, 0], batch["input_ids"][0, -1] = 3, vocabulary - 1
            if mask:
                batch["attention_mask"] = (torch.arange(n) < torch.randint(n // 2, n + 1, (size, 1))).long()
            batch.update({name: make_one(size) for name, make_one in more.items()})
            batch["labels"] = torch.zeros(size, dtype=torch.int64)
            batches.append(batch)
        return batches

    return make


# --- weights


@torch.no_grad()
def sane(module: nn.Module, batches: Sequence[Any], method: str = "forward") -> nn.Module:
    """Make every layer count: fresh networks have gains of 0 or 1e-6 that hide what lies behind them.

    Constant parameters get some noise, and the statistics of normalisation layers are those of the batches.
    """
    for parameter in module.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return module
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        # an average over the batches, whatever the momentum for training is
        norm.momentum = None
        norm.train()
    signature = inspect.signature(getattr(module, method))
    for batch in batches[:2]:
        args, kwargs = call_arguments(getattr(module, method), map_batch(signature, batch, method).arguments)
        getattr(module, method)(*args, **kwargs)
    return module
