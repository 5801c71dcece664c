"""Trainings of several processes on GPUs with the callback: DDP, FSDP and ModelParallel (FSDP2).

``python tests/gpu/strategies.py DIRECTORY all`` trains each with and without, looks at the artifacts and compares the
weights; so does ``ddp``, ``fsdp_full``, ``fsdp_sharded``, ``parallel_full`` or ``parallel_sharded`` alone. Then
``--export``, there or where Torch-TensorRT is, exports the same checkpoints without the training and compares engines.
With two GPUs each process has one, and they talk through NCCL. With one GPU the two share it, as two hosts of one
process each, and talk through gloo: NCCL refuses a GPU that two processes use. Without a GPU both train on the
processor, and an FSDPStrategy that does not insist on GPUs takes the place of Lightning's.
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

ON_CPU = not torch.cuda.is_available()
ALONE = torch.cuda.device_count() == 1
SHARED: dict[str, Any] = {"devices": 1, "num_nodes": 2} if ALONE else {"devices": 2}
SHARED["accelerator"] = "cpu" if ON_CPU else "gpu"
BACKEND = "gloo" if ALONE or ON_CPU else "nccl"


PARALLEL: dict[str, Any] = {"data_parallel_size": 2, "tensor_parallel_size": 1}
VARIANTS = ("fsdp_full", "fsdp_sharded", "parallel_full", "parallel_sharded")


class Sharded(Regression):
    """FSDP wants the optimizer to see the parameters that it made."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.trainer.model.parameters(), 0.1)


class Parallel(Regression):
    """FSDP2, as people write it: the layers in the constructor, what is spread in ``configure_model``."""

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


def fsdp_class() -> Any:
    """Lightning's, or one for processors: FSDP itself takes them, if they are named."""
    from lightning.pytorch.strategies import FSDPStrategy

    class OnCPU(FSDPStrategy):
        def _setup_model(self, model: Any) -> Any:
            from torch.distributed.fsdp import FullyShardedDataParallel

            device = torch.device("cpu")
            strategy = self.sharding_strategy
            return FullyShardedDataParallel(model, device_id=device, sharding_strategy=strategy, **self.kwargs)

    return OnCPU if ON_CPU else FSDPStrategy


MODULES = {"fsdp": Sharded, "parallel": Parallel}


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
        run = trainer(directory, saver, *callbacks, strategy=strategy, max_epochs=3, **SHARED)
        module = Regression()
        run.fit(module, datamodule=Data())
        weights.append({name: value.cpu().clone() for name, value in module.state_dict().items()})
        for export in callbacks:
            made = [artifact.path.name for artifact in export.artifacts]
            print(f"rank {run.global_rank} of {run.world_size}: {made}, {export.failures}", flush=True)
            assert len(made) == (3 if run.is_global_zero else 0) and not export.failures
    assert all(weights[0][name].equal(value) for name, value in weights[1].items()), "other weights with the callback"


def train_sharded(directory: Path, what: str) -> None:
    """With the callback the first process has its artifacts, and the weights are those of a training without it."""
    from lightning.pytorch import seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import ModelParallelStrategy

    from lightning_trt_windows import WindowsExport
    from lightning_trt_windows.artifact.artifact import check_artifact
    from lightning_trt_windows.checkpoints.consolidate import one_file

    family, kind = what.split("_")
    folder = directory / what
    for callbacks in ([], [WindowsExport(when="checkpoint")]):
        seed_everything(0)
        saver = ModelCheckpoint(folder, filename=f"{len(callbacks)}_{{epoch}}", save_top_k=-1)
        if family == "fsdp":
            strategy: Any = fsdp_class()(
                state_dict_type=kind,
                process_group_backend=BACKEND,
                auto_wrap_policy={torch.nn.Linear},
            )
        else:
            strategy = ModelParallelStrategy(
                save_distributed_checkpoint=kind == "sharded", process_group_backend=BACKEND, **PARALLEL
            )
        run = trainer(folder, saver, *callbacks, strategy=strategy, max_epochs=2, **SHARED)
        run.fit(MODULES[family](), datamodule=Data())
        for export in callbacks:
            made = [artifact.path.name for artifact in export.artifacts]
            print(f"{what}, rank {run.global_rank} of {run.world_size}: {made}, {export.failures}", flush=True)
            assert len(made) == (2 if run.is_global_zero else 0) and not export.failures
            for artifact in export.artifacts:
                check_artifact(artifact)
    if run.is_global_zero:
        paths = [one_file(folder / f"{number}_epoch=1.ckpt", trusted=True) for number in (0, 1)]
        one, other = (torch.load(path, map_location="cpu", weights_only=False)["state_dict"] for path in paths)
        assert one.keys() == other.keys(), "other keys with the callback"
        assert all(value.equal(other[name]) for name, value in one.items()), "other weights with the callback"
        print(f"{what}: weights bit-equal with and without", flush=True)


def export(directory: Path) -> None:
    """Export what ``train_sharded`` has left; its artifacts have the same engines."""
    from lightning_trt_windows import export_checkpoint
    from lightning_trt_windows.artifact.artifact import read_artifact

    for what in VARIANTS:
        for manifest in sorted((directory / what).glob("*.windows.json")):
            made = read_artifact(manifest).manifest
            checkpoint = manifest.with_name(manifest.name.replace(".windows.json", ".ckpt"))
            again = export_checkpoint(checkpoint, Regression, output=directory / "again").manifest
            assert made.checkpoint == again.checkpoint
            assert [e.sha256 for e in made.engines] == [e.sha256 for e in again.engines], f"{checkpoint}: other engines"
            print(f"{what}, {checkpoint.name}: the engines that an export afterwards gives")


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
        if what == "all":
            train_ddp(place)
        for variant in VARIANTS if what == "all" else (what,):
            train_sharded(place, variant)
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2]))
