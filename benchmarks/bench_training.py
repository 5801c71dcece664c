"""Throughput of a training with ``when="checkpoint"``, against the same training without the callback.

    python benchmarks/bench_training.py [--steps 3000] [--every 50] [--module all] [--devices 2]

A ResNet-18 trains on random images while a checkpoint is saved every 50 steps; both sides save it. They take turns,
each in processes of its own. Steps are counted from after the first checkpoint to the last one: what the callback does
in between counts; its one capture, at the first checkpoint, is shown for itself, and waiting for the last builds is not
counted. Runs differ by 1 or 2 % whatever the callback does, so that steps are shown in two parts as well: those with a
checkpoint, and all others, which builds in other processes may slow down. Shown too is for how long the callback holds
a checkpoint up, the median and the most of all but the first: before the file is written, which a GPU with steps left
to do does not notice, and after it.

What the module holds besides the network is chosen with ``--module``: nothing (``clean``), a tensor of two million
elements (``large``), outputs of all steps (``lists``), metrics of each step (``metrics``), a tokenizer and an open file
(``tokenizer``), everything of that in one module (``everything``), or each of these one after the other (``all``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

PROMISE = 0.99
"""Of the throughput without the callback."""
WARM_UP = 10
"""Steps that do not count, and as many after the first checkpoint."""
MODULES = ("clean", "large", "lists", "metrics", "tokenizer", "everything")


class Tokenizer:
    """Says no more of itself than an object of an extension."""

    __slots__ = ("words",)

    def __init__(self) -> None:
        self.words = {"a": 0}


def run(options: argparse.Namespace) -> None:
    """One training; prints its steps per second."""
    import lightning.pytorch as pl
    import torch
    import torchmetrics
    import torchvision
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_trt_windows import WindowsExport
    from lightning_trt_windows.training.checkpoint_watch import CheckpointWatch
    from lightning_trt_windows.training.session import Session

    steps, every = options.steps, options.every
    held = set(MODULES[1:-1] if options.module == "everything" else (options.module,))

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torchvision.models.resnet18()
            if "large" in held:
                self.large = torch.zeros(2_000_000)
            if "lists" in held:
                self.outputs: list[torch.Tensor] = []
            if "metrics" in held:
                self.accuracy = torchmetrics.classification.MulticlassAccuracy(1000)
            if "tokenizer" in held:
                self.tokenizer = Tokenizer()
                self.log_file = Path(os.devnull).open("w")  # noqa: SIM115 -- as users do

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            given = self(batch[0])
            loss = torch.nn.functional.cross_entropy(given, batch[1])
            if "large" in held:
                self.large[self.global_step] = 1.0
            if "lists" in held:
                self.outputs.append(loss.detach())
            if "metrics" in held:
                self.accuracy.update(given.detach(), batch[1])
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Clock(Callback):
        def __init__(self) -> None:
            self.at: dict[int, float] = {}
            self.began: list[float] = []

        def on_train_batch_start(self, *_: Any) -> None:
            self.began.append(time.perf_counter())

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step in (WARM_UP, every + WARM_UP, steps):
                if device == "cuda":
                    torch.cuda.synchronize()
                self.at[trainer.global_step] = time.perf_counter()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    # batches that lie where they are used: neither side waits for data
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else torch.device("cpu")
    size = options.size
    images, labels = torch.rand(20, options.batch, 3, size, size), torch.randint(0, 1000, (20, options.batch))
    data = DataLoader(TensorDataset(images.to(place), labels.to(place)), batch_size=None)
    clock = Clock()
    # before a checkpoint is written, while a GPU has steps left to do, and afterwards, when it has none
    ahead: list[float] = []
    blocked: list[float] = []

    def timed(method: Any, times: list[float]) -> Any:
        def call(*args: Any) -> None:
            started = time.perf_counter()
            method(*args)
            times.append((time.perf_counter() - started) * 1000)

        return call

    Session.save = timed(Session.save, ahead)  # type: ignore[method-assign]
    CheckpointWatch.saved = timed(CheckpointWatch.saved, blocked)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as directory:
        saver = ModelCheckpoint(directory, filename="{step}", every_n_train_steps=every, save_top_k=-1)
        # builds go on all the time; what is queued is replaced, so that the benchmark need not wait for all of them
        is_with = options.side == "with"
        ours = [WindowsExport(when="checkpoint", replace_queued=True, max_pending=1)] if is_with else []
        trainer = pl.Trainer(
            max_steps=steps, max_epochs=-1, callbacks=[*ours, clock, saver], logger=False, devices=options.devices,
            accelerator="gpu" if device == "cuda" else "cpu", strategy="ddp" if options.devices > 1 else "auto",
            use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=directory,
        )  # fmt: skip
        trainer.fit(Net(), data)
        made = len(ours[0].artifacts) if ours else 0
    if not trainer.is_global_zero:
        return
    first, started, ended = (clock.at[step] for step in (WARM_UP, every + WARM_UP, steps))
    rate = (steps - every - WARM_UP) / (ended - started)
    lasted = [(later - begun) * 1000 for begun, later in zip(clock.began, clock.began[1:])]
    counted = range(every + WARM_UP, steps - 1)  # a checkpoint belongs to the step that it comes after
    measured = {
        "rate": rate,
        "with_checkpoint": statistics.mean([lasted[i] for i in counted if (i + 1) % every == 0] or [0.0]),
        "others": statistics.mean(lasted[i] for i in counted if (i + 1) % every),
        "first": started - first - every / rate,
        "made": made,
        "ahead": ahead[1:],
        "blocked": blocked[1:],
    }
    print("\n" + json.dumps({**measured, "after": time.perf_counter() - ended}))


def compared(options: argparse.Namespace, module: str) -> float:
    """Measure both sides; gives the ratio of their throughputs."""
    rates: dict[str, list[float]] = {"without": [], "with": []}
    print(f"module: {module}, {options.devices} device(s)")
    for _ in range(options.rounds):
        for side, found in rates.items():
            command = [sys.executable, str(Path(__file__)), "--side", side, "--module", module]
            for name in ("steps", "every", "batch", "size", "devices"):
                command += [f"--{name}", str(getattr(options, name))]
            shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            measured = json.loads(next(line for line in reversed(shown.stdout.splitlines()) if line.startswith("{")))
            found.append(measured["rate"])
            line = (
                f"{side:8} {measured['rate']:8.2f} steps/s, {measured['with_checkpoint']:.1f} ms for a step with a "
                f"checkpoint, {measured['others']:.2f} ms for another one"
            )
            if side == "with":
                ahead, blocked = measured["ahead"], measured["blocked"]
                line += (
                    f", the first checkpoint cost {measured['first']:.2f} s more than the others, a later one takes "
                    f"{statistics.median(ahead):.0f} ms before it is written (at most {max(ahead):.0f}) and "
                    f"{statistics.median(blocked):.0f} after it (at most {max(blocked):.0f}); "
                    f"{measured['made']} artifacts, "
                    f"{measured['after']:.0f} s after the last step"
                )
            print(line, flush=True)
    ratio = statistics.median(rates["with"]) / statistics.median(rates["without"])
    print(f"ratio {ratio:.4f}, promised at least {PROMISE}")
    return ratio


def main() -> int:
    """Measure, print, compare with the promise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--module", choices=(*MODULES, "all"), default="clean")
    parser.add_argument("--side", choices=("without", "with"))
    options = parser.parse_args()
    if options.side:
        warnings.simplefilter("ignore")
        run(options)
        return 0
    modules = MODULES if options.module == "all" else (options.module,)
    return int(min(compared(options, module) for module in modules) < PROMISE)


if __name__ == "__main__":
    sys.exit(main())
