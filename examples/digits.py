"""Train a small network on handwritten digits; at the end its Windows engines stand beside the checkpoints.

Run ``make demo``, or ``python examples/digits.py`` where the package is installed with its extra ``rtx`` and with
scikit-learn, which ships the digits: 1797 real ones, 8 x 8 pixels each. About a minute on two CPU cores, no GPU needed.

What it takes to get the Windows files is the one callback in :func:`train`; all else is ordinary Lightning.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_trt_windows import Artifact, WindowsExport

Batch = tuple[Tensor, Tensor]


class DigitsData(L.LightningDataModule):
    """Images as float32 [batch, 1, 8, 8] from 0 to 1, labels as int64 [batch]; 60 : 20 : 20 for train, val and test."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split once, the same way every time."""
        images, labels = load_digits(return_X_y=True)
        x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16  # pixels count from 0 to 16
        y = torch.tensor(labels, dtype=torch.int64)
        train, held_out = train_test_split(range(len(y)), test_size=0.4, stratify=labels, random_state=0)
        val, test = train_test_split(held_out, test_size=0.5, stratify=labels[held_out], random_state=0)
        self.train, self.val, self.test = (TensorDataset(x[part], y[part]) for part in (train, val, test))

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled; the last batch is smaller than the others."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """In order; never seen while training, nor when the best checkpoint is chosen."""
        return DataLoader(self.test, self.batch_size)


class Digits(L.LightningModule):
    """A small convolutional net: image in, ten scores out."""

    def __init__(self, width: int = 32, lr: float = 4e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            *conv(1, width),
            *conv(width, 2 * width),
            nn.MaxPool2d(2),
            *conv(2 * width, 2 * width),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(2 * width * 4 * 4, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """What is exported: scores [batch, 10] of images ``x`` [batch, 1, 8, 8]."""
        scores: Tensor = self.net(x)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val_acc``, by which the best checkpoint is chosen."""
        self.log_accuracy("val_acc", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``test_acc``."""
        self.log_accuracy("test_acc", batch)

    def log_accuracy(self, name: str, batch: Batch) -> None:
        """Log the share of images whose highest score is their label."""
        x, y = batch
        self.log(name, (self(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def on_validation_epoch_end(self) -> None:
        """One line per epoch instead of a progress bar: it reads the same in a terminal and in a log."""
        accuracy = self.trainer.callback_metrics["val_acc"]
        self.print(f"  epoch {self.current_epoch:2}: {accuracy:.1%} of the validation digits")

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle of the learning rate."""
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=1e-2)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams["lr"], total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def conv(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    """3 x 3 convolution, normalised, rectified."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()


def train(epochs: int, directory: str) -> WindowsExport:
    """Train and test; the best and the last checkpoint each get their Windows engines."""
    best = ModelCheckpoint(monitor="val_acc", mode="max", filename="best-{epoch}")
    last = ModelCheckpoint(filename="last-{epoch}")
    windows = WindowsExport()
    trainer = L.Trainer(
        callbacks=[best, last, windows],
        max_epochs=epochs,
        logger=CSVLogger(directory, name="digits"),
        accelerator="auto",
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), datamodule=DigitsData())
    (result,) = trainer.test(datamodule=DigitsData(), ckpt_path=best.best_model_path, verbose=False)
    print(f"The best checkpoint reads {result['test_acc']:.1%} of the held-out digits.\n")
    return windows


def report(artifacts: Iterable[Artifact]) -> str:
    """A table: one row for each artifact, one line for each input's range below it."""
    rows: list[tuple[str, ...]] = [("artifact", "checkpoint", "engines", "MB", "capture", "compile", "write")]
    notes = []
    for artifact in artifacts:
        made, took = artifact.manifest, artifact.manifest.timings
        rows.append(
            (
                artifact.path.name,
                made.checkpoint.file if made.checkpoint else "",
                str(len(made.engines)),
                f"{made.ep.size / 1e6:.2f}",
                *(f"{seconds:.2f} s" for seconds in (took.capture, took.compile, took.write)),
            )
        )
        for spec in made.inputs:
            axes = ", ".join(
                str(low) if low == high else f"{low}..{high} (tuned for {usual})"
                for low, usual, high in zip(spec.min, spec.opt, spec.max, strict=True)
            )
            notes.append(f"{artifact.path.name} takes {spec.name}: {spec.dtype} [{axes}]")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *notes])


def main() -> None:
    """Train, and show what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--directory", default="demo_runs", help="where the run's folder goes (default: %(default)s)")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # which hardware there is, tips about the cloud
    # the data sits in memory: processes to load it would only slow it down
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Lightning 2.6 calls a function that PyTorch 2.14 deprecates
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")

    L.seed_everything(7, verbose=False)
    print("Training on handwritten digits; the best and the last checkpoint are exported at the end ...", flush=True)
    windows = train(arguments.epochs, arguments.directory)
    print(report(windows.artifacts))
    for failure in windows.failures:
        print(f"failed: {failure}")
    if windows.artifacts:
        print(f"\nThey are in {windows.artifacts[-1].path.parent}. To look inside one:")
        print(f"lightning-trt-windows inspect '{windows.artifacts[-1].path}'")


if __name__ == "__main__":
    main()
