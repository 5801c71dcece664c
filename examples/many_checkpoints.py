"""Many checkpoints, built by Dask while the training goes on.

    python examples/many_checkpoints.py

Every checkpoint that is saved becomes a job: a file and paths, none of this script's code. Here two workers on this
machine build them; a cluster's (``dask_jobqueue.SLURMCluster`` and the like) do it the same way, where they have the
package installed and see the same directory. A minute on two CPU cores, no GPU needed. It takes the package
``distributed``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import lightning as L
import torch
from distributed import Client, LocalCluster
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_trt_windows import WindowsExport


class Net(L.LightningModule):
    """Learns the sum of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        """What is exported: numbers [batch, 1] of rows [batch, 8]."""
        result: Tensor = self.net(x)
        return result

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Mean squared error."""
        (x,) = batch
        loss = nn.functional.mse_loss(self(x), x.sum(1, keepdim=True))
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 3e-3)


def train(executor: Any, epochs: int, directory: str) -> WindowsExport:
    """One checkpoint an epoch, all of them kept."""
    windows = WindowsExport(when="checkpoint", executor=executor)
    every = ModelCheckpoint(directory, filename="{epoch}-{loss:.3f}", monitor="loss", save_top_k=-1)
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[every, windows],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), DataLoader(TensorDataset(torch.rand(2000, 8)), 50, shuffle=True))
    return windows


def main() -> None:
    """Train, and say what was built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--directory", default="demo_runs/many")
    arguments = parser.parse_args()
    L.seed_everything(7, verbose=False)
    start = time.perf_counter()
    # one build a worker at a time: the builder uses several processors by itself
    workers: dict[str, Any] = {"n_workers": arguments.workers, "threads_per_worker": 1, "dashboard_address": None}
    with (
        tempfile.TemporaryDirectory() as scratch,
        LocalCluster(local_directory=scratch, **workers) as cluster,  # type: ignore[no-untyped-call]
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        windows = train(client.get_executor(), arguments.epochs, arguments.directory)
    print(
        f"{len(windows.artifacts)} artifacts and {len(windows.failures)} failures, {time.perf_counter() - start:.0f} s"
    )
    print(*windows.artifacts, *windows.failures, sep="\n")


if __name__ == "__main__":
    main()
