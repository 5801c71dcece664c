"""A small training with a progress bar, for a terminal or a notebook: ``train_with_bar.py BAR WHEN DIRECTORY``."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support.lightning_models import Data, Regression

from lightning_trt_windows import WindowsExport


class Slow(Regression):
    """Leaves the bar time to be drawn."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)


def train(bar: str, when: Any, directory: str) -> WindowsExport:
    """Three epochs; the best two and the last are kept, others are deleted."""
    L.seed_everything(1, verbose=False)  # what is saved depends on the loss
    warnings.filterwarnings("ignore", module="lightning")  # Lightning's own are written into its bars
    windows = WindowsExport(when=when)
    saver = ModelCheckpoint(directory, monitor="val_loss", save_last=True, save_top_k=2, filename="{epoch}")
    bars = {"rich": RichProgressBar, "tqdm": TQDMProgressBar}
    L.Trainer(
        accelerator="cpu", logger=False, enable_model_summary=False, default_root_dir=directory, max_epochs=3,
        callbacks=[bars[bar](), saver, windows],
    ).fit(Slow(), datamodule=Data())  # fmt: skip
    return windows


if __name__ == "__main__":
    train(*sys.argv[1:])
