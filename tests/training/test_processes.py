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


@pytest.mark.parametrize("variant", ["fsdp_full", "fsdp_sharded", "parallel_full", "parallel_sharded"])
def test_parameters_that_are_spread(tmp_path: Path, variant: str) -> None:
    """With the callback the weights are the same, and each checkpoint has the artifact that an export afterwards gives.

    FSDP of Lightning wants GPUs, so that a class that derives from it trains here.
    """
    for what, sentence in (
        (variant, f"{variant}: weights bit-equal with and without"),
        ("--export", f"{variant}, 1_epoch=1{'-consolidated' * variant.endswith('sharded')}.ckpt: the engines that"),
    ):
        command = [sys.executable, TESTS / "gpu" / "strategies.py", tmp_path, what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        assert sentence in done.stdout
    if variant == "parallel_sharded":
        _made_by_hand(tmp_path / variant / "0_epoch=1.ckpt")


@pytest.mark.parametrize("case", ["stage1", "stage2", "stage3", "stage3_bf16", "off"])
def test_deepspeed(tmp_path: Path, case: str) -> None:
    """The same of DeepSpeed, whose strategy wants GPUs too."""
    pytest.importorskip("deepspeed")
    command = [sys.executable, TESTS / "gpu" / "deepspeed_run.py", tmp_path, case, "--timeout", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=700, check=False)
    assert done.returncode == 0, done.stdout
    assert '"well": true' in done.stdout


def _made_by_hand(checkpoint: Path) -> None:
    """The command in the message makes the same file as we do, and we make it once."""
    whole = checkpoint.with_name("0_epoch=1-consolidated.ckpt")
    whole.unlink()
    with pytest.raises(CheckpointError, match="consolidate_checkpoint") as error:
        export_checkpoint(checkpoint, Regression, Data())
    command = next(line for line in str(error.value).splitlines() if "of ModelParallelStrategy" in line)
    subprocess.run([sys.executable, *command.partition("(")[0].split()[1:]], check=True, capture_output=True)
    by_hand = torch.load(whole, weights_only=True)["state_dict"]
    whole.unlink()
    assert one_file(checkpoint, trusted=False) == checkpoint
    assert one_file(checkpoint, trusted=True) == whole
    assert all(by_hand[name].equal(value) for name, value in torch.load(whole)["state_dict"].items())
    made = whole.stat().st_mtime_ns
    (artifact,) = export_checkpoints([checkpoint], Regression, Data(), trust_checkpoint=True).artifacts
    assert artifact.path.name == "0_epoch=1-consolidated.windows.ep"
    assert whole.stat().st_mtime_ns == made, "it is made once"


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
