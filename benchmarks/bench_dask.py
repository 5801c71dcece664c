"""How many times faster Dask workers export many checkpoints than one of them does.

    python benchmarks/bench_dask.py                               # 4 workers against 1, 24 checkpoints of a ResNet-18
    python benchmarks/bench_dask.py --workers 2 --checkpoints 8   # on a machine of two cores

Each side is a cluster of its own on this machine, with one thread a worker, and a fresh copy of the checkpoints. What a
worker pays once, the imports and its first build, is done before the clock starts, for it is the same for hundreds of
checkpoints. Measured is the command that people run: from its first line to its last artifact.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from lightning_trt_windows.cli import main as command

__all__ = ["main"]

TARGET = 3.0
"""Times faster on four workers, at least."""


class Classifier(L.LightningModule):
    """A model of torchvision, with random weights."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.save_hyperparameters()
        import torchvision

        self.net = getattr(torchvision.models, model)()

    def forward(self, x: Tensor) -> Tensor:
        """Scores of images."""
        scores: Tensor = self.net(x)
        return scores


def write_checkpoints(folder: Path, model: str, count: int) -> None:
    """As a training leaves them."""
    folder.mkdir()
    module = Classifier(model)
    for number in range(count):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02)
        content: dict[str, Any] = {"state_dict": module.state_dict(), "epoch": number, "global_step": number}
        content |= {"pytorch-lightning_version": L.__version__, "hyper_parameters": dict(module.hparams)}
        torch.save(content, folder / f"epoch={number}.ckpt")


def exported(pattern: str, address: str) -> tuple[float, str]:
    """Seconds of the command, and what it has said of how far it is."""
    arguments = ["export", pattern, "--module", f"{__file__}:Classifier", "--executor", f"dask:{address}"]
    arguments += ["--input", "x=float32[1..2..8,3,224,224]"]
    said, started = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        status = command(arguments)
    if status:
        raise SystemExit(said.getvalue())
    return time.perf_counter() - started, said.getvalue()


def side(workers: int, model: str, count: int) -> float:
    """Seconds that ``workers`` take for ``count`` checkpoints."""
    import distributed

    with tempfile.TemporaryDirectory() as directory:
        write_checkpoints(Path(directory) / "run", model, count)
        write_checkpoints(Path(directory) / "first", model, 2 * workers)
        cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, local_directory=directory
        )
        with cluster:
            exported(f"{directory}/first/*.ckpt", cluster.scheduler_address)
            seconds, said = exported(f"{directory}/run/*.ckpt", cluster.scheduler_address)
    print(f"{workers} worker{'s' * (workers > 1)}: {seconds:.1f} s, {seconds / count:.2f} s a checkpoint", flush=True)
    for line in [line for line in said.splitlines() if " of " in line][:3]:
        print(f"  it said: {line}", flush=True)
    return seconds


def main() -> int:
    """Measure, print, compare with the target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--checkpoints", type=int, default=24)
    parser.add_argument("--model", default="resnet18", help="of torchvision (default: %(default)s)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        f"{arguments.checkpoints} checkpoints of {arguments.model}, {os.cpu_count()} processor cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    alone = side(1, arguments.model, arguments.checkpoints)
    together = side(arguments.workers, arguments.model, arguments.checkpoints)
    ratio, target = alone / together, TARGET * arguments.workers / 4
    print(f"{ratio:.2f} times faster on {arguments.workers} workers; the target is {target:.2f} (3 on four workers)")
    return int(ratio < target)


if __name__ == "__main__":
    sys.exit(main())
