"""How long a training waits for its exports with ``when="checkpoint"``.

    python benchmarks/bench_checkpoint.py
    python benchmarks/bench_checkpoint.py --model resnet50

A real Trainer on the CPU saves a checkpoint every few steps, without the callback and with builds in another process.
Measured is the time inside the Trainer's ``save_checkpoint``, and the part of it that is the
callback's, from the second checkpoint on: the first one is captured.
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

__all__ = ["main"]

TARGET = 100.0
"""Milliseconds a checkpoint, at most, beyond Lightning's own save and the one capture."""


def run(model: str, side: str, checkpoints: int) -> None:
    """One training; prints the milliseconds of each save, and those of each hook of ours."""
    import lightning.pytorch as pl
    import torch
    import torchvision
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_trt_windows import WindowsExport
    from lightning_trt_windows.training.session import Session

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = getattr(torchvision.models, model)()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-6)

    every = 2
    data = DataLoader(TensorDataset(torch.rand(2 * every * checkpoints, 3, 64, 64)), batch_size=2)
    saves: list[float] = []
    ours: list[float] = []
    ours_of_save: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        saver = ModelCheckpoint(directory, filename="{step}", every_n_train_steps=every, save_top_k=-1)
        callbacks: list[Any] = [saver]
        if side == "with":
            export = WindowsExport(when="checkpoint")
            look = Session.look

            def timed_look(following: Session) -> None:
                started = time.perf_counter()
                look(following)
                ours.append((time.perf_counter() - started) * 1000)

            Session.look = timed_look  # type: ignore[method-assign]
            callbacks.append(export)
        trainer = pl.Trainer(
            accelerator="cpu", callbacks=callbacks, logger=False, max_epochs=1, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=directory,
        )  # fmt: skip
        save = trainer.save_checkpoint

        def timed(*args: Any, **kwargs: Any) -> None:
            started = time.perf_counter()
            before = len(ours)
            save(*args, **kwargs)
            saves.append((time.perf_counter() - started) * 1000)
            ours_of_save.append(sum(ours[before:]))

        trainer.save_checkpoint = timed  # type: ignore[method-assign]
        trainer.fit(Net(), data)
        assert side == "without" or len(export.artifacts) == checkpoints
    print("\n" + json.dumps({"saves": saves, "ours": ours_of_save}))


def main() -> int:
    """Measure, print, compare with the target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--side", choices=("without", "with"))
    arguments = parser.parse_args()
    if arguments.side:
        warnings.simplefilter("ignore")
        run(arguments.model, arguments.side, arguments.checkpoints)
        return 0
    print(f"{arguments.model}, {arguments.checkpoints} checkpoints; milliseconds inside save_checkpoint")
    print(
        f"{'':10}{'first':>8}{'later: median':>15}{'most':>8}{'of it ours: first':>20}{'later: median':>15}{'most':>8}"
    )
    most = 0.0
    for side in ("without", "with"):
        command = [sys.executable, str(Path(__file__)), "--model", arguments.model, "--side", side]
        command += ["--checkpoints", str(arguments.checkpoints)]
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        measured = json.loads(text.splitlines()[-1])
        (first, *later), (ours, *ours_later) = measured["saves"], measured["ours"]
        most = max(most, *ours_later)
        print(
            f"{side:10}{first:8.0f}{statistics.median(later):15.1f}{max(later):8.1f}"
            f"{ours:20.0f}{statistics.median(ours_later):15.1f}{max(ours_later):8.1f}",
            flush=True,
        )
    print(f"the callback adds {most:.1f} ms a checkpoint at most; the target is {TARGET:.0f} ms")
    return int(most > TARGET)


if __name__ == "__main__":
    sys.exit(main())
