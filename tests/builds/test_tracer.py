"""When a module is captured again, and when an earlier trace serves."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from support.jobs import checkpoint
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows import DimRange, InputSpec, WindowsExport
from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.builds.trace_folder import STALE_AFTER, sweep
from lightning_trt_windows.builds.tracer import Tracer
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.export.options import ExportOptions

INPUTS = {"x": InputSpec((DimRange(1, 2, 8), 4))}


def taken(tracer: Tracer, module: Any) -> Snapshot:
    """The module as it is now."""
    return tracer.snapshot(module, lambda: discover(module, inputs=INPUTS), step=1)


@pytest.fixture
def tracer() -> Tracer:
    """With the defaults."""
    return Tracer(ExportOptions())


class Annealed(Regression):
    """Multiplies by what its Trainer says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1 + self.current_epoch)


def test_the_place_in_training(tmp_path: Path) -> None:
    """A forward that asks for the epoch is captured for each checkpoint, and has the epoch of each."""
    export = WindowsExport(when="checkpoint", executor="inline", golden=True)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(tmp_path, saver, export, max_epochs=2).fit(Annealed(), datamodule=Data())
    assert export.failures == []
    assert all(artifact.manifest.timings.capture > 0 for artifact in export.artifacts)
    assert len({artifact.manifest.backend.options["request"] for artifact in export.artifacts}) == 2


def test_what_has_changed_since(tmp_path: Path, tracer: Tracer) -> None:
    """A file that was written later is exported as the module was; where that cannot be, it is refused."""
    module = Net("attribute").eval()
    moment = taken(tracer, module)
    path = checkpoint(tmp_path / "a.ckpt", module)
    tracer.job(module, path, moment.past(), ())
    module.attribute = 3.0
    tracer.job(module, checkpoint(tmp_path / "b.ckpt", module), moment.past(), ())
    assert tracer.traced == 1, "the trace is one of that moment"
    later = taken(tracer, module)
    module.unread = 4.0  # which no forward names
    tracer.job(module, checkpoint(tmp_path / "c.ckpt", module), later.past(), ())
    assert tracer.traced == 2
    later = taken(tracer, module)
    module.attribute = 4.0
    tracer.job(module, checkpoint(tmp_path / "d.ckpt", module), later.past(), ())
    assert tracer.traced == 2, "there is a trace of that moment"
    later = taken(tracer, module)
    module.attribute = 5.0
    with pytest.raises(CaptureError, match=r"e\.ckpt was written after training had gone on.*lightning-trt-windows"):
        tracer.job(module, checkpoint(tmp_path / "e.ckpt", module), later.past(), ())
    tracer.close()


def test_written_later_by_a_thread(tmp_path: Path) -> None:
    """In a real training: an attribute that changes after each checkpoint, and files that come later."""

    class Slow(AsyncCheckpointIO):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            self._ensure_setup()
            self._executor.submit(time.sleep, 0.5)  # type: ignore[union-attr]
            super().save_checkpoint(*args, **kwargs)

    class Anneals(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.scale = float(trainer.current_epoch)

    export = WindowsExport(when="checkpoint", executor="inline", preflight=False)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)

    class Scaled(Regression):
        scale = 0.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.scale

    run = trainer(tmp_path, saver, Anneals(), export, max_epochs=2, plugins=[Slow()])
    with pytest.warns(UserWarning, match="was written after training had gone on"):
        run.fit(Scaled(), datamodule=Data())
    assert [artifact.path.name for artifact in export.artifacts] == ["epoch=1.windows.ep"]


def test_a_run_of_many_hours_keeps_its_trace(tmp_path: Path, tracer: Tracer) -> None:
    """Another run that begins in the same directory leaves it what it uses, however old that is."""
    module = Regression().eval()
    job = tracer.job(module, checkpoint(tmp_path / "a.ckpt", module), taken(tracer, module), ())
    folder = job.program.path.parent  # type: ignore[union-attr]
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - STALE_AFTER - 60,) * 2)
    sweep(tmp_path)
    job = tracer.job(module, checkpoint(tmp_path / "b.ckpt", module), taken(tracer, module), ())
    job.load()
    assert tracer.traced == 1
    tracer.close()
    assert not folder.exists()


def test_a_trace_that_was_deleted(tmp_path: Path, tracer: Tracer) -> None:
    """It is captured again, and nothing is built of what is not there."""
    module = Regression().eval()
    job = tracer.job(module, checkpoint(tmp_path / "a.ckpt", module), taken(tracer, module), ())
    job.program.path.unlink()  # type: ignore[union-attr]
    job = tracer.job(module, checkpoint(tmp_path / "b.ckpt", module), taken(tracer, module), ())
    job.load()
    assert tracer.traced == 2
    tracer.close()


# --- what forward can depend on


class Helper:
    """Keeps a number, and gives it to forward as a bound method."""

    def __init__(self) -> None:
        self.factor = 1.0

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def closure() -> tuple[dict[str, Any], Any]:
    """A function, and what it closes over."""
    box = {"factor": 1.0}
    return box, lambda x: x * box["factor"]


FACTOR = {"global": 1.0}


class Net(Regression):
    """Multiplies by what a number in one of many places says, and keeps what no forward depends on."""

    shared = 1.0

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.where = where
        self.box, self.closure = closure()
        self.helper = Helper()
        self.bound = self.helper.scaled
        self.attribute = 1.0
        self.threshold = 0.0
        self.constant = torch.ones(4)
        self.register_buffer("transient", torch.ones(4), persistent=False)
        self.flag = False
        self.nested = [{"deep": 1.0}]

    def forward(self, x: torch.Tensor) -> Any:
        factors: dict[str, Any] = {
            "closure": lambda: self.closure(x),
            "bound method": lambda: self.bound(x),
            "class": lambda: x * type(self).shared,
            "global": lambda: x * FACTOR["global"],
            "attribute": lambda: x * self.attribute,
            "tensor of an attribute": lambda: x * torch.tensor(self.attribute),
            "constant": lambda: x * self.constant,
            "buffer": lambda: x * self.transient,
            "nested": lambda: x * self.nested[0]["deep"],  # type: ignore[operator]
        }
        result = super().forward(factors[self.where]() if self.where in factors else x)
        if self.where == "threshold":
            return result > self.threshold
        if self.where == "branch":
            return result.exp() if self.flag else result
        if self.where == "number":
            return result, self.attribute
        if self.where == "item":
            return result * self.net[0].weight.sum().item() * self.attribute
        return result

    def change(self) -> None:
        """Change what forward depends on, wherever it is."""
        self.box["factor"] = self.helper.factor = self.attribute = self.threshold = 2.0
        type(self).shared = FACTOR["global"] = 2.0
        self.constant.fill_(2.0)
        self.transient.fill_(2.0)
        self.flag = True
        self.nested[0]["deep"] = 2.0

    def change_back(self) -> None:
        """As it was."""
        type(self).shared = FACTOR["global"] = 1.0


@pytest.mark.parametrize(
    "where",
    [
        *("closure", "bound method", "class", "global", "attribute", "tensor of an attribute", "constant", "buffer"),
        *("nested", "threshold", "branch", "number", "item"),
    ],
)
def test_what_forward_depends_on(tmp_path: Path, tracer: Tracer, where: str) -> None:
    """As long as it is the same one capture serves; when it has changed, the next checkpoint has the change."""
    module = Net(where).eval()
    x = torch.randn(3, 4)
    try:
        for name, captures in (("a", 1), ("b", 1), ("c", 2), ("d", 2)):
            if name == "c":
                module.change()
            for weight in module.parameters():
                torch.nn.init.normal_(weight)
            job = tracer.job(module, checkpoint(tmp_path / f"{name}.ckpt", module), taken(tracer, module), ())
            program, _ = job.load()
            torch.testing.assert_close(program.module()(x), module(x))
            assert tracer.traced == captures
    finally:
        module.change_back()
        tracer.close()


class Tokenizer:
    """Says no more of itself than an object of an extension."""

    __slots__ = ("words",)

    def __init__(self) -> None:
        self.words = {"a": 0}


class Holding(Regression):
    """Holds what modules of users hold, and changes it in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.large = torch.zeros(2_000_000)
        self.tokenizer = Tokenizer()
        self.file = Path(os.devnull).open()  # noqa: SIM115 -- as users do
        self.outputs: list[torch.Tensor] = []
        self.steps = 0
        self.metric = torchmetrics.MeanMetric()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.outputs.append(loss.detach())
        self.steps += 1
        self.metric.update(loss.detach())
        self.large[self.steps] = loss.detach()
        return loss


def test_what_no_forward_depends_on(tmp_path: Path) -> None:
    """In a real training, one capture serves all checkpoints, and the module keeps what the steps have left in it."""
    export = WindowsExport(when="checkpoint", executor="inline", preflight=False)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    module = Holding()
    trainer(tmp_path, saver, export, max_epochs=3).fit(module, datamodule=Data())
    assert export.failures == []
    assert [artifact.manifest.timings.capture > 0 for artifact in export.artifacts] == [True, False, False]
    assert len(module.outputs) == module.steps == 15
    module.file.close()


class Alternating(Regression):
    """Goes two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flip(0) if self.odd else x)


def test_back_to_what_it_was(tmp_path: Path, tracer: Tracer) -> None:
    """A module that goes back to what it computed before is not captured a third time."""
    module = Alternating().eval()
    for index in range(6):
        module.odd = bool(index % 2)
        path = checkpoint(tmp_path / f"{index}.ckpt", module)
        program, _ = tracer.job(module, path, taken(tracer, module), ()).load()
        x = torch.randn(3, 4)
        torch.testing.assert_close(program.module()(x), module(x))
    assert tracer.traced == 2
    tracer.close()


def test_weights_that_are_not_numbers(tmp_path: Path, tracer: Tracer) -> None:
    """A training that has diverged is not captured anew each time."""
    module = Regression().eval()
    for name in ("a", "b"):
        tracer.job(module, checkpoint(tmp_path / f"{name}.ckpt", module), taken(tracer, module), ())
        torch.nn.init.constant_(module.net[0].weight, float("nan"))
    assert tracer.traced == 1
    tracer.close()


def test_inputs_that_the_module_does_not_take(tmp_path: Path, tracer: Tracer) -> None:
    """Where it cannot be run on small inputs nothing is known, and it is captured each time."""

    class Picky(Regression):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_exporting() or type(x) is torch.Tensor:
                raise ValueError("real tensors are not for me")
            return super().forward(x)

    module = Picky().eval()
    for name in ("a", "b"):
        tracer.job(module, checkpoint(tmp_path / f"{name}.ckpt", module), taken(tracer, module), ())
    assert tracer.traced == 2
    with pytest.raises(CaptureError, match="cannot be run on small inputs"):
        path = checkpoint(tmp_path / "c.ckpt", module)
        tracer.job(module, path, taken(tracer, module).past(), ())
    tracer.close()
