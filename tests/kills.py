"""SIGKILL at random moments, of trainers and of their builders: ``python tests/kills.py [COUNT]``.

After each kill nothing half stands under a final name, and the next run completes what is missing. The suite does a few
of these; a release wants 200.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact import check_artifact, sha256_of

TRAIN = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_models import Data, Regression, trainer
from lightning_trt_windows import WindowsExport
from lightning_trt_windows.builds.executors import BuildProcess
print("begins", flush=True)
names = {{"filename": "{{epoch}}", "enable_version_counter": False}}
saver = ModelCheckpoint({directory!r}, save_top_k=-1, save_last=True, **names)
# of normal priority: a busy machine would starve the builds
export = WindowsExport(when="checkpoint", executor=BuildProcess(niceness=0), preflight=False)
last = {directory!r} + "/last.ckpt"
import os
run = trainer({directory!r}, saver, export, max_epochs={epochs})
run.fit(Regression(), datamodule=Data(), ckpt_path=last if os.path.exists(last) and {resume} else None)
assert not export.failures, export.failures
"""


def train(directory: Path, epochs: int, *, resume: bool = False) -> subprocess.Popen[Any]:
    """A training of its own, which has begun when this returns."""
    code = TRAIN.format(tests=str(Path(__file__).parent), directory=str(directory), epochs=epochs, resume=resume)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def builders(trainer: int) -> list[int]:
    """The processes that ``trainer`` builds in."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = status.read_text().partition(" ")
            if int(rest.rpartition(")")[2].split()[1]) == trainer:
                found.append(int(pid))
    return found


def assert_nothing_half(directory: Path) -> None:
    """Each manifest has its whole .ep."""
    for manifest in directory.glob("*.windows.json"):
        check_artifact(manifest)


def kill_trainer(directory: Path, chance: random.Random, longest: float) -> None:
    """Kill a training after a random time, see what stands there, and let the next one complete it."""
    process = train(directory, 3)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0, longest))
    children = builders(process.pid)
    process.kill()
    process.communicate()
    assert_nothing_half(directory)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children):  # builders end with their trainer
        assert time.monotonic() < deadline, "a builder outlives its trainer"
        time.sleep(0.1)
    assert_nothing_half(directory)
    complete(directory)


def kill_builder(directory: Path, chance: random.Random, longest: float) -> None:
    """Kill a builder after a random time: training ends well, and the next one completes what is missing."""
    process = train(directory, 2)
    time.sleep(chance.uniform(0, longest))
    for child in builders(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.communicate(timeout=600)
    assert_nothing_half(directory)
    complete(directory)


def complete(directory: Path) -> None:
    """Train on, and find an artifact of the right weights beside every checkpoint that was made."""
    process = train(directory, 4, resume=True)
    _, log = process.communicate(timeout=600)
    assert process.returncode == 0, log.decode()
    for checkpoint in directory.glob("*.ckpt"):
        record = check_artifact(checkpoint.with_suffix(".windows.ep")).manifest.checkpoint
        assert record is not None
        assert record.sha256 == sha256_of(checkpoint), checkpoint


def main() -> None:
    """Kill as often as the first argument says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for number in range(seed, seed + count):
        chance = random.Random(number)
        with tempfile.TemporaryDirectory() as directory:
            kill = chance.choice([kill_trainer, kill_builder])
            kill(Path(directory), chance, 25)
            print(number, kill.__name__, "complete", flush=True)


if __name__ == "__main__":
    main()
