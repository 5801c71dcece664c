"""What ``forward`` and hooks write to, beside parameters and buffers, is given back."""

from __future__ import annotations

import functools
import random
import threading
import types
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer
from torch import Tensor, nn

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.modules.borrowed import reachable_kept

SEEN: list[Any] = []
TIMES = 0


class Slotted:
    """Keeps a number without ``__dict__``."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 1


class Shared:
    """Another thread works on it."""

    def __init__(self) -> None:
        self.lock, self.done = threading.Lock(), 0


class Writes(nn.Module):
    """Writes wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = types.SimpleNamespace(calls=0, inner={"deep": [deque([1], maxlen=3)]})
        self.slotted, self.shared = Slotted(), Shared()
        self.center, self.table = torch.tensor([float("nan"), 1.0]), np.zeros(3)
        self.whole = torch.zeros(2)
        self.drawn = [torch.Generator().manual_seed(1), np.random.default_rng(2), random.Random(3)]
        self.other = [nn.BatchNorm1d(2)]
        self.names = {"one"}

    def forward(self, x: Tensor) -> Tensor:
        global TIMES
        TIMES += 1
        SEEN.append(x)
        self.plain.calls += 1
        self.plain.inner["deep"][0].append(2)
        self.slotted.number += 1
        self.shared.done += 1
        self.center[1] += 1
        self.whole.resize_(5)
        self.table += 1
        torch.rand(1, generator=self.drawn[0])
        self.drawn[1].random()
        self.drawn[2].random()
        self.names.add("two")
        return self.other[0](x)


def test_everything_that_forward_reaches() -> None:
    """Also what is nested, without attributes, resized, not a number, drawn from, global, or in no module tree."""
    module, x = Writes().train(), torch.randn(4, 2)
    drawn = [module.drawn[0].get_state().clone(), module.drawn[1].bit_generator.state, module.drawn[2].getstate()]
    held, counted = module.plain.inner["deep"][0], []
    module.register_forward_hook(lambda *_: counted.append(1))
    module.register_forward_pre_hook(functools.partial(lambda into, *_: into.append(2), counted))
    with pytest.raises(ZeroDivisionError), reachable_kept(module):
        module(x)
        assert (module.plain.calls, len(counted), TIMES, len(SEEN)) == (1, 2, 1, 1)
        raise ZeroDivisionError
    assert (module.plain.calls, counted, TIMES, SEEN) == (0, [], 0, [])
    assert module.plain.inner["deep"][0] is held
    assert list(held) == [1]
    assert module.slotted.number == 1
    assert module.center.isnan().tolist() == [True, False]
    assert module.center[1] == 1
    assert module.whole.tolist() == [0, 0]
    assert module.table.tolist() == [0, 0, 0]
    assert module.names == {"one"}
    assert int(module.other[0].num_batches_tracked) == 0
    assert torch.equal(module.drawn[0].get_state(), drawn[0])
    assert [module.drawn[1].bit_generator.state, module.drawn[2].getstate()] == drawn[1:]
    assert module.shared.done == 1, "what threads share is theirs"


def test_variables_of_closures() -> None:
    """A hook that counts in a variable of the function that made it."""
    module = nn.Linear(2, 2)

    def counting() -> Any:
        mean: Any = torch.zeros(())

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            nonlocal mean
            mean = mean + output.mean()

        module.register_forward_hook(hook)
        return lambda: mean

    mean = counting()
    before = mean()
    with reachable_kept(module):
        module(torch.ones(1, 2))
    assert mean() is before


class Makes(OrderedDict[str, type]):
    """Makes what is asked for, as the table of activations of transformers does."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key)()


TABLE = Makes(relu=nn.ReLU)


class Looks(nn.Module):
    """Uses a table."""

    def forward(self, x: Tensor) -> Tensor:
        return TABLE["relu"](x)  # type: ignore[no-any-return]


def test_containers_that_make_things_are_left_alone() -> None:
    """Reading one is not what it holds."""
    with reachable_kept(Looks()):
        pass
    assert list(OrderedDict.values(TABLE)) == [nn.ReLU]


class Refuses:
    """Has nothing to say, as a proxy of what is not there."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("nothing is there")


def test_objects_that_cannot_be_looked_at() -> None:
    """They are left out, and all others are kept."""
    module = nn.Module()
    module.one, module.list = Refuses(), [1]  # type: ignore[assignment]
    with reachable_kept(module):
        module.list.append(2)  # type: ignore[operator]
    assert module.list == [1]


def test_much_that_is_reached() -> None:
    """A long list loses what was added, and a module that reaches millions of objects takes no time to speak of."""
    module = nn.Module()
    module.long, module.words = [0] * 100_000, {str(number): [number] for number in range(49_000)}  # type: ignore[assignment]
    with reachable_kept(module):
        module.long.append(1)  # type: ignore[operator]
        module.words["0"] = [7]  # type: ignore[operator]
    assert len(module.long) == 100_000  # type: ignore[arg-type]
    assert module.words["0"] == [0]  # type: ignore[index]


class Activations(L.Callback):
    """Keeps means of what a layer gives, as many projects do."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.running, self.means = torch.zeros(()), list[float]()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layer = next(m for m in pl_module.modules() if isinstance(m, nn.Linear))
        layer.register_forward_hook(lambda _m, _i, o: self.seen.append(o.detach().abs().mean()))
        layer.register_forward_hook(self.average)

    def average(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.running = 0.9 * self.running + 0.1 * output.detach().mean()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.means += [float(torch.stack(self.seen).mean()), float(self.running)]
        self.seen.clear()


class Logs(Regression):
    """Logs within ``forward``, and draws from a generator of its own, to no effect that a program would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        noise = float(0.1 * self.drawn.random())
        y = super().forward(x) * (1 + noise * self.training)
        self.log("mean", y.mean(), on_epoch=True, on_step=False)
        return y


@pytest.mark.parametrize("when", ["train_end", "checkpoint"])
def test_a_training_whose_hooks_keep_something(when: str, tmp_path: Path) -> None:
    """The same numbers with the callback; fake tensors of the capture ended it, or its metrics were others."""
    found = []
    for name in ("without", "with"):
        L.seed_everything(0, verbose=False)
        activations, saver = Activations(), ModelCheckpoint(tmp_path / name, save_top_k=-1)
        exports = [WindowsExport(when=when, executor="inline")] if name == "with" else []  # type: ignore[arg-type]
        module, run = Logs(), trainer(tmp_path / name, activations, saver, *exports, max_epochs=2)
        run.fit(module, datamodule=Data())
        weights = [value.tolist() for value in module.state_dict().values()]
        found.append((activations.means, run.logged_metrics["mean"], module.drawn.bit_generator.state, weights))
        assert all(export.artifacts and not export.failures for export in exports)
    assert found[0] == found[1]
