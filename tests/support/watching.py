"""The least of a callback: watches a module as the real one does, in a real Trainer. Shared by tests and benchmarks."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_trt_windows.discovery.observer import Observer

__all__ = ["Model", "Rows", "Watch", "fit", "loader"]


class Rows(Dataset[Any]):
    """Samples that are already there."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


def loader(rows: int, size: int, *, features: int = 4, **kwargs: Any) -> DataLoader[Any]:
    """Batches ``(x, y)`` of ``size``."""
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(features, generator=generator), index % 2) for index in range(rows)]
    return DataLoader(Rows(data), batch_size=size, **kwargs)


class Watch(pl.Callback):
    """Tells an observer which loader feeds, and shows it every batch."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Watch from now on."""
        self.observer.attach(pl_module)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Training feeds."""
        self.observer.stage("train")
        self.observer.batch(batch)

    def on_validation_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, *args: Any) -> None:
        """Validation feeds."""
        self.observer.stage("sanity" if trainer.sanity_checking else "val")
        self.observer.batch(batch)

    def on_fit_end(self, *args: Any) -> None:
        """Watch no longer."""
        self.observer.detach()


class Model(pl.LightningModule):
    """One linear layer; what ``step`` returns is the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ``x``."""
        return self.layer(x)

    def step(self, batch: Any) -> torch.Tensor:
        """How a batch becomes a loss; what the tests vary."""
        x, y = batch
        return torch.nn.functional.cross_entropy(self(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """One step."""
        return self.step(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """One step."""
        self.step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module: Any, train: Any, val: Any = None, observer: Observer | None = None, **kwargs: Any) -> Observer:
    """One epoch on the CPU, watched."""
    observer = observer or Observer()
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [Watch(observer)],
    }
    pl.Trainer(**{**settings, **kwargs}).fit(module, train, val)
    return observer
