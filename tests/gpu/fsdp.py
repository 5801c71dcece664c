"""FSDP on GPUs: refused with the callback, and its checkpoints exported afterwards.

On a machine with GPUs, two for what it is about: ``python tests/gpu/fsdp.py DIRECTORY full``, the same with
``sharded``, then ``python tests/gpu/fsdp.py DIRECTORY --export``, there or where Torch-TensorRT is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lightning_models import Data, Regression, trainer


class Sharded(Regression):
    """FSDP wants the optimizer to see the parameters that it made."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.trainer.model.parameters(), 0.1)


def train(directory: Path, kind: str) -> None:
    """Train without the callback and save; with it the Trainer must refuse."""
    from lightning.pytorch.strategies import FSDPStrategy

    from lightning_trt_windows import WindowsExport
    from lightning_trt_windows.errors import ConfigurationError

    for callbacks in ([WindowsExport()], []):
        strategy = FSDPStrategy(state_dict_type=kind)
        run = trainer(
            directory, *callbacks, accelerator="gpu", devices=min(2, torch.cuda.device_count()),
            strategy=strategy, max_epochs=1, enable_checkpointing=False,
        )  # fmt: skip
        try:
            run.fit(Sharded(), datamodule=Data())
        except ConfigurationError as error:
            print(f"rank {run.global_rank} refused: {error}", flush=True)
        else:
            assert not callbacks, "FSDP was not refused"
            run.save_checkpoint(directory / f"{kind}.ckpt")


def export(directory: Path) -> None:
    """Export what ``train`` has left, after the command of the message where it is a directory."""
    from lightning_trt_windows import export_checkpoint
    from lightning_trt_windows.artifact import check_artifact
    from lightning_trt_windows.errors import CheckpointError

    sharded = directory / "sharded.ckpt"
    try:
        export_checkpoint(sharded, Regression, Data())
    except CheckpointError as error:
        line = next(line for line in str(error).splitlines() if "of FSDPStrategy" in line)
    subprocess.run([sys.executable, *line.partition("(")[0].split()[1:]], check=True)
    for name in ("full.ckpt", "sharded-consolidated.ckpt"):
        print(check_artifact(export_checkpoint(directory / name, Regression, Data())))


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    if "--export" in sys.argv:
        export(place)
    else:
        train(place, sys.argv[2])
