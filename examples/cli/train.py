"""A LightningCLI with YAML: the flag ``--windows_export`` exports, the file ``config.yaml`` says how.

    python examples/cli/train.py fit --config examples/cli/config.yaml
    python examples/cli/train.py fit --config examples/cli/config.yaml --windows_export.precision=16
    python examples/cli/train.py fit --config examples/cli/config.yaml --windows_export=false

It trains on the handwritten digits that scikit-learn ships; half a minute on two CPU cores, no GPU needed. It takes the
package's extra ``rtx``, scikit-learn, and ``jsonargparse[signatures]``, which every LightningCLI needs.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_trt_windows import WindowsExport, WindowsExportCLI

Batch = tuple[Tensor, Tensor]


class Data(L.LightningDataModule):
    """Images as float32 [batch, 64] from 0 to 1, labels as int64 [batch].

    Args:
        batch_size: Images in a batch; the last one of an epoch is smaller.
    """

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Split once, the same way every time."""
        images, labels = load_digits(return_X_y=True)
        digits = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
        self.train, self.val = random_split(digits, [0.8, 0.2], torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return DataLoader(self.val, self.batch_size)


class Classifier(L.LightningModule):
    """Two hidden layers.

    Args:
        width: Units of each.
        lr: Step of Adam.
    """

    def __init__(self, width: int = 128, lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )

    def forward(self, image: Tensor) -> Tensor:
        """What is exported: scores [batch, 10] of images [batch, 64]."""
        scores: Tensor = self.net(image)
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy."""
        image, label = batch
        return F.cross_entropy(self(image), label)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val_acc``, by which the best checkpoint is chosen."""
        image, label = batch
        self.log("val_acc", (self(image).argmax(1) == label).float().mean(), batch_size=len(label))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), self.hparams["lr"])


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says, and show what came out."""
    cli = WindowsExportCLI(Classifier, Data, args=arguments, seed_everything_default=7)
    trainer: Any = cli.trainer
    print(f"val_acc {trainer.callback_metrics.get('val_acc', float('nan')):.1%}")
    for callback in trainer.callbacks:
        if isinstance(callback, WindowsExport):
            print(*callback.artifacts, *callback.failures, sep="\n")


if __name__ == "__main__":
    main()
