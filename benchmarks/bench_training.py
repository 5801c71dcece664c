"""Throughput of a training on a GPU with ``when="checkpoint"``, against the same training without the callback.

    python benchmarks/bench_training.py [--steps 3000] [--every 50]

A ResNet-18 trains on random images while a checkpoint is saved every 50 steps; both sides save it. They take turns,
each in a process of its own. Steps are counted from after the first checkpoint to the last one: what the callback does
in between counts; its one capture, at the first checkpoint, is shown for itself, and waiting for the last builds is not
counted.
"""

from __future__ import annotations

import argparse
import json
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


def run(side: str, steps: int, every: int, batch: int) -> None:
    """One training; prints its steps per second."""
    import lightning.pytorch as pl
    import torch
    import torchvision
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_trt_windows import WindowsExport

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torchvision.models.resnet18()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Clock(Callback):
        def __init__(self) -> None:
            self.at: dict[int, float] = {}

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step in (WARM_UP, every + WARM_UP, steps):
                if device == "cuda":
                    torch.cuda.synchronize()
                self.at[trainer.global_step] = time.perf_counter()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    # batches that lie where they are used: neither side waits for data
    images, labels = torch.rand(20, batch, 3, 224, 224), torch.randint(0, 1000, (20, batch))
    data = DataLoader(TensorDataset(images.to(device), labels.to(device)), batch_size=None)
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        saver = ModelCheckpoint(directory, filename="{step}", every_n_train_steps=every, save_top_k=-1)
        # builds go on all the time; what is queued is replaced, so that the benchmark need not wait for all of them
        ours = [WindowsExport(when="checkpoint", replace_queued=True, max_pending=1)] if side == "with" else []
        trainer = pl.Trainer(
            max_steps=steps, max_epochs=-1, callbacks=[*ours, clock, saver], logger=False, devices=1,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=directory,
        )  # fmt: skip
        trainer.fit(Net(), data)
        made = len(ours[0].artifacts) if ours else 0
    first, started, ended = (clock.at[step] for step in (WARM_UP, every + WARM_UP, steps))
    rate = (steps - every - WARM_UP) / (ended - started)
    measured = {"rate": rate, "first": started - first - every / rate, "made": made}
    print("\n" + json.dumps({**measured, "after": time.perf_counter() - ended}))


def main() -> int:
    """Measure, print, compare with the promise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=("without", "with"))
    options = parser.parse_args()
    if options.side:
        warnings.simplefilter("ignore")
        run(options.side, options.steps, options.every, options.batch)
        return 0
    rates: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(options.rounds):
        for side, found in rates.items():
            command = [sys.executable, str(Path(__file__)), "--side", side, "--steps", str(options.steps)]
            command += ["--every", str(options.every), "--batch", str(options.batch)]
            shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            measured = json.loads(shown.stdout.splitlines()[-1])
            found.append(measured["rate"])
            print(
                f"{side:8} {measured['rate']:8.2f} steps/s, the first checkpoint cost {measured['first']:.2f} s "
                f"more than the others, {measured['made']} artifacts, {measured['after']:.0f} s after the last step",
                flush=True,
            )
    ratio = statistics.median(rates["with"]) / statistics.median(rates["without"])
    print(f"ratio {ratio:.4f}, promised at least {PROMISE}")
    return int(ratio < PROMISE)


if __name__ == "__main__":
    sys.exit(main())
