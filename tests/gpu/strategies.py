"""Trainings of several processes on GPUs: DDP with the callback, FSDP without it and exported afterwards.

``python tests/gpu/strategies.py DIRECTORY ddp``, the same with ``full`` and ``sharded``, then with ``--export``,
there or where Torch-TensorRT is. With two GPUs each process has one, and they talk through NCCL. With one GPU the two
share it, as two hosts of one process each, and talk through gloo: NCCL refuses a GPU that two processes use.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support.lightning_models import Data, Regression, trainer

ALONE = torch.cuda.device_count() < 2
SHARED: dict[str, Any] = {"devices": 1, "num_nodes": 2} if ALONE else {"devices": 2}
BACKEND = "gloo" if ALONE else "nccl"


class Sharded(Regression):
    """FSDP wants the optimizer to see the parameters that it made."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.trainer.model.parameters(), 0.1)


def train_ddp(directory: Path) -> None:
    """With the callback each checkpoint has its artifact, and the weights are those of a training without it."""
    from lightning.pytorch import seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import DDPStrategy

    from lightning_trt_windows import WindowsExport

    weights = []
    for callbacks in ([], [WindowsExport(when="checkpoint")]):
        seed_everything(0)
        saver = ModelCheckpoint(directory, filename=f"{len(callbacks)}_{{epoch}}", save_top_k=-1)
        strategy = DDPStrategy(process_group_backend=BACKEND)
        run = trainer(directory, saver, *callbacks, accelerator="gpu", strategy=strategy, max_epochs=3, **SHARED)
        module = Regression()
        run.fit(module, datamodule=Data())
        weights.append({name: value.cpu().clone() for name, value in module.state_dict().items()})
        for export in callbacks:
            made = [artifact.path.name for artifact in export.artifacts]
            print(f"rank {run.global_rank} of {run.world_size}: {made}, {export.failures}", flush=True)
            assert len(made) == (3 if run.is_global_zero else 0) and not export.failures
    assert all(weights[0][name].equal(value) for name, value in weights[1].items()), "other weights with the callback"


def train_fsdp(directory: Path, kind: str) -> None:
    """Train without the callback and save; with it the Trainer must refuse."""
    from lightning.pytorch.strategies import FSDPStrategy

    from lightning_trt_windows import WindowsExport
    from lightning_trt_windows.errors import ConfigurationError

    for callbacks in ([WindowsExport()], []):
        strategy = FSDPStrategy(state_dict_type=kind, process_group_backend=BACKEND)  # type: ignore[arg-type]
        run = trainer(
            directory, *callbacks, accelerator="gpu", strategy=strategy, max_epochs=1, enable_checkpointing=False,
            **SHARED,
        )  # fmt: skip
        try:
            run.fit(Sharded(), datamodule=Data())
        except ConfigurationError as error:
            print(f"rank {run.global_rank} of {run.world_size} refused: {error}", flush=True)
        else:
            assert not callbacks, "FSDP was not refused"
            run.save_checkpoint(directory / f"{kind}.ckpt")


def export(directory: Path) -> None:
    """Export what ``train_fsdp`` has left, after the command of the message where it is a directory."""
    from lightning_trt_windows import export_checkpoint
    from lightning_trt_windows.artifact.artifact import check_artifact
    from lightning_trt_windows.errors import CheckpointError

    sharded = directory / "sharded.ckpt"
    try:
        export_checkpoint(sharded, Regression, Data())
    except CheckpointError as error:
        line = next(line for line in str(error).splitlines() if "of FSDPStrategy" in line)
    subprocess.run([sys.executable, *line.partition("(")[0].split()[1:]], check=True)
    for name in ("full.ckpt", "sharded-consolidated.ckpt"):
        print(check_artifact(export_checkpoint(directory / name, Regression, Data())))


def main(place: Path, what: str) -> int:
    """Train in two processes, or export; the exit status."""
    if what == "--export":
        export(place)
    elif ALONE and "NODE_RANK" not in os.environ:
        both = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", **os.environ}
        hosts = [subprocess.Popen([sys.executable, *sys.argv], env={**both, "NODE_RANK": rank}) for rank in "01"]
        return max(abs(host.wait()) for host in hosts)
    elif what == "ddp":
        train_ddp(place)
    else:
        train_fsdp(place, what)
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2]))
