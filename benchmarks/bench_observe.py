"""What observing costs a training step.

    python benchmarks/bench_observe.py

Two measurements. First the observer alone: microseconds that a call of ``forward`` and of ``Observer.batch`` take
longer, for the batches people have. Then a real Trainer with a model so small that a step is nearly all Lightning's own
work, the worst case for a ratio, with and without, taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from lightning_trt_windows.discovery.observer import Observer

__all__ = ["main"]

TARGET = 20.0
"""Microseconds a step, at most."""

IMAGES, LABELS = torch.randn(32, 3, 8, 8), torch.randint(10, (32,))
BATCHES: dict[str, tuple[Any, ...]] = {
    "one tensor": (IMAGES,),
    "two tensors": (IMAGES, LABELS),
    "dict of four tensors": ({"ids": LABELS, "mask": LABELS, "types": LABELS, "image": IMAGES},),
    "two tensors, two flags, None": (IMAGES, LABELS, True, 0.5, None),
    "eight tensors in lists": ([IMAGES] * 4, [LABELS] * 4),
}


class Takes(torch.nn.Module):
    """Does nothing, so that the difference is all there is to see."""

    def forward(self, *args: Any) -> None:
        """Nothing."""


def microseconds(call: Callable[[], object], repeat: int) -> float:
    """Of one call, on the processor: what else the machine does is not in it. The best of twenty rounds."""
    rounds = []
    for _ in range(20):
        started = time.process_time()
        for _ in range(repeat):
            call()
        rounds.append((time.process_time() - started) / repeat * 1e6)
    return min(rounds)


def per_call(repeat: int) -> float:
    """Print the table; the most that a step costs, ``forward`` and ``batch`` together."""
    print(f"{'microseconds':34}{'forward':>9}{'batch':>9}   batch where forward is never called")
    most = 0.0
    for name, args in BATCHES.items():
        module, observer, alone = Takes(), Observer(), Observer()
        plain = microseconds(lambda: module(*args), repeat)  # noqa: B023 -- called before the loop goes on
        observer.attach(module)
        observer.stage("train")
        alone.stage("train")
        forward = microseconds(lambda: module(*args), repeat) - plain  # noqa: B023 -- as above
        batch = microseconds(lambda: observer.batch(args), repeat)  # noqa: B023 -- as above
        unseen = microseconds(lambda: alone.batch(args), repeat)  # noqa: B023 -- as above
        print(f"  {name:32}{forward:9.2f}{batch:9.2f}{unseen:38.2f}")
        most = max(most, forward + batch, unseen)
    return most


class Model(pl.LightningModule):
    """One layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.layer(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """One step."""
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), 0.1)


class Watch(pl.Callback):
    """The hooks that the export callback has for observing, or the same hooks empty."""

    def __init__(self, observer: Observer | None) -> None:
        self.observer = observer
        self.started = self.seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach and start the clock."""
        if self.observer is not None:
            self.observer.attach(pl_module)
            self.observer.stage("train")
        self.started = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Show the batch."""
        if self.observer is not None:
            self.observer.batch(batch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self.started
        if self.observer is not None:
            self.observer.detach()


def step_seconds(steps: int, observer: Observer | None) -> float:
    """Seconds a step of a real training."""
    data: Any = [(torch.randn(8, 16), torch.randint(2, (8,)))] * steps
    watch = Watch(observer)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(Model(), DataLoader(data, batch_size=None))
    return watch.seconds / steps


def main() -> None:
    """Run both and say whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5_000, help="calls in a round")
    parser.add_argument("--steps", type=int, default=2_000, help="steps of a training")
    parser.add_argument("--trainings", type=int, default=7, help="trainings of each kind")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    most = per_call(arguments.repeat)
    step_seconds(arguments.steps, None)  # warm up
    pairs = [
        (step_seconds(arguments.steps, Observer()), step_seconds(arguments.steps, None))
        for _ in range(arguments.trainings)
    ]
    watched, plain = (statistics.median(side) * 1e6 for side in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"a Lightning step: {watched:.1f} us watched, {plain:.1f} us plain, ratio {ratio:.3f}")
    print(f"observing costs at most {most:.1f} us a step; target {TARGET:.0f}: {'met' if most < TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
