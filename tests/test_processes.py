"""Several processes: trainings of two, and kills."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import kills
import pytest

from lightning_trt_windows.artifact import check_artifact

pytestmark = pytest.mark.processes

TWO = """
import os, sys, warnings, time
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_models import Data, Regression, trainer
from lightning_trt_windows import WindowsExport
from lightning_trt_windows.builds.executors import BuildProcess
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
    script.write_text(TWO.format(tests=str(Path(__file__).parent), directory=str(tmp_path / "run"), when=when))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert f"rank 0: {count} artifacts, []" in done.stdout
    assert "rank 1: 0 artifacts, []" in done.stdout
    manifests = list((tmp_path / "run").glob("*.windows.json"))
    assert len(manifests) == count
    for manifest in manifests:
        check_artifact(manifest)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("kill", [kills.kill_trainer, kills.kill_builder])
def test_kills(tmp_path: Path, kill: object) -> None:
    """Killed at a random moment: nothing half under a final name, and the next run completes what is missing."""
    kill(tmp_path, random.Random(), 12)  # type: ignore[operator]
