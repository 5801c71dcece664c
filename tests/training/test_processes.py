"""Several processes: trainings of two, and kills."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import kills
from support.lightning_models import Data, Regression
from support.paths import TESTS

from lightning_trt_windows import export_checkpoint, export_checkpoints
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.checkpoints.consolidate import one_file
from lightning_trt_windows.errors import CheckpointError

pytestmark = pytest.mark.processes

TWO = """
import os, sys, warnings, time
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer
from lightning_trt_windows import WindowsExport
from lightning_trt_windows.builds.executors.process import BuildProcess
if __name__ == "__main__":
    saver = ModelCheckpoint({directory!r}, filename="{{epoch}}", save_top_k=-1)
    export = WindowsExport(when={when!r}, executor=BuildProcess(niceness=0))
    run = trainer({directory!r}, saver, export, max_epochs=2, devices=2, strategy="ddp")
    run.fit(Regression(), datamodule=Data())
    print(f"rank {{run.global_rank}}: {{len(export.artifacts)}} artifacts, {{export.failures}}", flush=True)
"""


@pytest.mark.parametrize(("when", "count"), [("checkpoint", 2)])
def test_two_processes(tmp_path: Path, when: str, count: int) -> None:
    """Under DDP the first process exports, the other one waits for nothing, and both end well."""
    script = tmp_path / "train.py"
    script.write_text(TWO.format(tests=str(TESTS), directory=str(tmp_path / "run"), when=when))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert f"rank 0: {count} artifacts, []" in done.stdout
    assert "rank 1: 0 artifacts, []" in done.stdout
    manifests = list((tmp_path / "run").glob("*.windows.json"))
    assert len(manifests) == count
    for manifest in manifests:
        check_artifact(manifest)


SHARDED = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
from lightning.pytorch.strategies import ModelParallelStrategy
from support.lightning_models import Data, Regression, trainer
from lightning_trt_windows import WindowsExport
from lightning_trt_windows.errors import ConfigurationError
class Parallel(Regression):
    def configure_model(self):
        from torch.distributed.fsdp import fully_shard
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])
if __name__ == "__main__":
    for export in (WindowsExport(on_error="raise"), WindowsExport()):
        strategy = ModelParallelStrategy(save_distributed_checkpoint={sharded}, process_group_backend="gloo")
        run = trainer({directory!r}, export, max_epochs=1, devices=2, strategy=strategy, enable_checkpointing=False)
        try:
            run.fit(Parallel(), datamodule=Data())
        except ConfigurationError as error:
            print(f"rank {{run.global_rank}} refused: {{error}}", flush=True)
        else:
            run.save_checkpoint({directory!r} + "/a.ckpt")
            print(f"rank {{run.global_rank}} trained: {{export.failures}}", flush=True)
"""


@pytest.mark.parametrize("sharded", [True, False])
def test_parameters_that_are_spread(tmp_path: Path, sharded: bool) -> None:
    """ModelParallelStrategy is refused; its checkpoints are exported afterwards, as one file.

    Every process refuses it with ``on_error="raise"``; otherwise it trains, and has a failure that says so.
    """
    script = tmp_path / "train.py"
    script.write_text(SHARDED.format(tests=str(TESTS), directory=str(tmp_path), sharded=sharded))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert f"rank {rank} refused: WindowsExport cannot export under ModelParallelStrategy" in done.stdout
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("rank 0 trained:"))
    assert "WindowsExport cannot export under ModelParallelStrategy" in said
    checkpoint = tmp_path / "a.ckpt"
    if sharded:
        with pytest.raises(CheckpointError, match="consolidate_checkpoint") as error:
            export_checkpoint(checkpoint, Regression, Data())
        command = next(line for line in str(error.value).splitlines() if "of ModelParallelStrategy" in line)
        subprocess.run([sys.executable, *command.partition("(")[0].split()[1:]], check=True, capture_output=True)
        whole = tmp_path / "a-consolidated.ckpt"
        by_hand = torch.load(whole, weights_only=True)["state_dict"]
        whole.unlink()
        assert one_file(checkpoint, trusted=False) == checkpoint
        assert one_file(checkpoint, trusted=True) == whole
        assert all(by_hand[name].equal(value) for name, value in torch.load(whole)["state_dict"].items())
        made = whole.stat().st_mtime_ns
        (artifact,) = export_checkpoints([checkpoint], Regression, Data(), trust_checkpoint=True).artifacts
        assert artifact.path.name == "a-consolidated.windows.ep"
        assert whole.stat().st_mtime_ns == made, "it is made once"
        checkpoint = whole
    assert check_artifact(export_checkpoint(checkpoint, Regression, Data())).manifest.checkpoint is not None


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("kill", [kills.kill_trainer, kills.kill_builder])
def test_kills(tmp_path: Path, kill: Callable[[Path, random.Random, int], None]) -> None:
    """Killed at random moments: nothing half under a final name, and the next run completes what is missing.

    ``KILLS=200`` in the environment is for releases: half of them of trainers, half of builders that wait for work or
    are at it, ten in each training.
    """
    left = max(int(os.environ.get("KILLS", "2")) // 2, 1)
    for number in range(-(-left // 10)):
        folder = tmp_path / str(number)
        folder.mkdir()
        kill(folder, random.Random(), min(10, left - 10 * number))
