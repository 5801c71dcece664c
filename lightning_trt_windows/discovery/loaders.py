"""A few batches from a datamodule without a Trainer, as its Trainer would have shown them to the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from lightning_trt_windows.discovery.observer import Observer, batch_sizes
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.state import random_state_kept

__all__ = ["Sampled", "sample_batches", "transferred"]

STAGES = {"predict": "predict", "val": "validate", "test": "test", "train": "fit"}
"""Loaders in the order they are asked, what deployment looks like first, and the stage that ``setup`` is called for."""


@dataclass(frozen=True)
class Sampled:
    """The batches that were drawn."""

    observer: Observer
    """Holds their descriptions."""
    stage: str
    """The loader that spoke; empty where none did."""
    silent: tuple[str, ...] = ()
    """Why the loaders asked before it did not, a sentence each."""
    notes: tuple[str, ...] = field(default=())


def sample_batches(
    module: torch.nn.Module, datamodule: Any, *, max_batches: int, stages: Collection[str] = tuple(STAGES)
) -> Sampled:
    """Describe up to ``max_batches`` batches of the first loader that gives any.

    ``prepare_data`` and ``setup`` are called as a Trainer calls them. The state of the random number generators of
    torch, NumPy, Python and the loaders comes back as it was.

    Args:
        module: Its batch-transfer hooks are applied, unless the datamodule overrides them. Its own loaders are asked
            where there is no datamodule; its ``setup`` is not called, for it may make new layers.
        datamodule: A ``LightningDataModule``, anything with its loader methods, or ``None``.
        max_batches: Bound for loaders that are long or never end.
        stages: The loaders to ask, of ``STAGES``.

    Returns:
        The descriptions, and the stage whose loader gave them.
    """
    source = module if datamodule is None else datamodule
    silent: list[str] = []
    with random_state_kept():
        if datamodule is not None:
            # a download that fails matters only where the data is not there yet, and then a loader will say so
            _call(datamodule, "prepare_data", silent)
        for stage, setup in STAGES.items():
            method = f"{stage}_dataloader"
            make = getattr(source, method, None)
            if stage not in stages or make is None or _is_default(make):
                continue
            if datamodule is not None and not _call(datamodule, "setup", silent, setup):
                continue
            observer = Observer()
            observer.stage(stage)
            notes: list[str] = []
            try:
                loaders = make()
                observer.loader_sizes[stage] = set(batch_sizes(loaders))
                with _generators(loaders):
                    for batch, index in _draw(loaders, stage, max_batches):
                        observer.batch(transferred(module, datamodule, batch, index, notes))
            except ShapeDiscoveryError:
                raise
            except Exception as exc:  # a loader that cannot run here must not keep the next one from speaking
                silent.append(f"{method} failed: {type(exc).__name__}: {exc}")
                continue
            if observer.batches():
                return Sampled(observer, stage, tuple(silent), tuple(dict.fromkeys(notes)))
            silent.append(f"{method} gave no batch")
    return Sampled(Observer(), "", tuple(silent))


_HOOKS = ("lightning.pytorch.core.hooks", "pytorch_lightning.core.hooks")
"""Where Lightning's own do-nothing methods live, under both of its names."""


def _call(datamodule: Any, name: str, silent: list[str], *args: Any) -> bool:
    try:
        getattr(datamodule, name, lambda *_: None)(*args)
    except Exception as exc:  # as above; the sentence ends up in the error when nothing else speaks
        silent.append(f"{name}{args or '()'} failed: {type(exc).__name__}: {exc}".replace(",)", ")"))
        return False
    return True


def _is_default(method: Any) -> bool:
    """Whether a loader method is the one Lightning defines only to say that it is missing."""
    return getattr(method, "__module__", "") in _HOOKS


def _draw(loaders: Any, stage: str, most: int) -> Iterator[tuple[Any, int]]:
    """Batches and the number of their loader: one after the other, but together in training, as Lightning does it."""
    if type(loaders).__name__ == "CombinedLoader":
        # gives (batch, batch_idx, dataloader_idx)
        yield from ((drawn[0], drawn[2]) for drawn in islice(loaders, most))
    elif isinstance(loaders, Mapping):
        if stage == "train":
            yield from ((dict(zip(loaders, batches)), 0) for batches in islice(zip(*loaders.values()), most))
        else:
            yield from _one_after_the_other(loaders.values(), most)
    elif isinstance(loaders, (list, tuple)):
        if stage == "train":
            yield from ((type(loaders)(batches), 0) for batches in islice(zip(*loaders), most))
        else:
            yield from _one_after_the_other(loaders, most)
    elif loaders is not None:
        yield from _one_after_the_other([loaders], most)


def _one_after_the_other(loaders: Iterable[Any], most: int) -> Iterator[tuple[Any, int]]:
    for index, loader in enumerate(loaders):
        yield from ((batch, index) for batch in islice(loader, most))


def transferred(module: Any, datamodule: Any, batch: Any, index: int, notes: list[str]) -> Any:
    """``batch`` after the hooks before and after transfer, on the CPU.

    Returns:
        The batch as steps receive it.

    Raises:
        ShapeDiscoveryError: A hook failed.
    """
    for hook in ("on_before_batch_transfer", "on_after_batch_transfer"):
        owner = datamodule if not _is_default(getattr(datamodule, hook, _missing)) else module
        apply: Callable[[Any, int], Any] = getattr(owner, hook, _missing)
        try:
            batch = apply(batch, index)
        except Exception as exc:
            if "not attached to a `Trainer`" in str(exc):
                notes.append(f"{hook} needs a Trainer and was left out")
                continue
            raise ShapeDiscoveryError(
                f"{type(owner).__name__}.{hook} failed on a batch without a Trainer: {type(exc).__name__}: {exc}. "
                "Make it work without one, or give the inputs explicitly"
            ) from exc
    return batch


def _missing(batch: Any, index: int) -> Any:
    return batch


# stands for Lightning's own method: nothing of the user's
_missing.__module__ = _HOOKS[0]


@contextmanager
def _generators(loaders: Any) -> Iterator[None]:
    """Put back what drawing batches takes from generators that the user gave to loaders and samplers."""
    found: list[torch.Generator] = []

    def collect(loader: Any) -> None:
        if isinstance(loader, (Mapping, list, tuple)):
            for inner in loader.values() if isinstance(loader, Mapping) else loader:
                collect(inner)
            return
        for owner in (loader, getattr(loader, "sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                found.append(generator)

    collect(loaders)
    states = [generator.get_state() for generator in found]
    try:
        yield
    finally:
        for generator, state in zip(found, states):
            generator.set_state(state)
