"""SIGKILL at random moments, of trainers and of their builders, which stay for the next build.

After each kill nothing half stands under a final name. A run is killed some times, resumed in between, and then left
alone: it completes what is missing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.artifact.files import sha256_of

TESTS = Path(__file__).resolve().parents[1]

TRAIN = """
import os, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer
from lightning_trt_windows import WindowsExport
from lightning_trt_windows.builds.executors.process import BuildProcess
print("begins", os.getpid(), flush=True)
names = {{"filename": "{{epoch}}", "enable_version_counter": False}}
saver = ModelCheckpoint({directory!r}, save_top_k=-1, save_last=True, **names)
# of normal priority: a busy machine would starve the builds
export = WindowsExport(when="checkpoint", executor=BuildProcess(niceness=0), preflight=False)
last = {directory!r} + "/last.ckpt"
run = trainer({directory!r}, saver, export, max_epochs={epochs})
run.fit(Regression(), datamodule=Data(), ckpt_path=last if os.path.exists(last) and {resume} else None)
sys.exit({failures} if export.failures else 0)
"""
BUILDER = b"lightning_trt_windows.builds.executors.worker"
"""What the command line of a builder has in it."""
FAILURES = 7
"""Exit code of a training that ended well, but for artifacts."""


def train(directory: Path, epochs: int, *, resume: bool = False) -> subprocess.Popen[Any]:
    """A training of its own, which has begun when this returns."""
    code = TRAIN.format(tests=str(TESTS), directory=str(directory), epochs=epochs, resume=resume, failures=FAILURES)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    begins = process.stdout.readline().split()
    # or its builders would be sought among the children of the program that starts the interpreter
    assert begins[1:] == [str(process.pid).encode()], f"{sys.executable} is {process.pid} and trains as {begins}"
    return process


def builders(trainer: int) -> list[int]:
    """The processes that ``trainer`` builds in.

    It has other children where mpi4py is installed: Lightning's MPIEnvironment imports it, which starts a daemon of
    Open MPI (``orted``), without which Open MPI ends the training with exit code 195.
    """
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = status.read_text().partition(" ")
            is_child = int(rest.rpartition(")")[2].split()[1]) == trainer
            if is_child and BUILDER in status.with_name("cmdline").read_bytes():
                found.append(int(pid))
    return found


def assert_nothing_half(directory: Path) -> None:
    """Each manifest has its whole .ep."""
    for manifest in directory.glob("*.windows.json"):
        check_artifact(manifest)


def wait_for_a_moment(directory: Path, chance: random.Random, longest: float, process: subprocess.Popen[Any]) -> bool:
    """Wait for up to ``longest`` seconds; whether ``process`` goes on. Every other time it ends as a file changes."""
    last = time.monotonic() + chance.uniform(0, longest)
    for_change, before = chance.random() < 0.5, _names(directory)
    while time.monotonic() < last and process.poll() is None:
        if for_change and _names(directory) != before:
            time.sleep(chance.uniform(0, 0.02))
            break
        time.sleep(0.001)
    return process.poll() is None


def _names(directory: Path) -> set[str]:
    return set(os.listdir(directory))  # noqa: PTH208 -- a thousand times a second


def kill_trainer(directory: Path, chance: random.Random, kills: int) -> None:
    """Kill a training and what it builds ``kills`` times, resume it each time, and see that the last completes all."""
    done = epochs = 0
    while done < kills:
        epochs += 1
        process = train(directory, epochs, resume=True)
        killed = wait_for_a_moment(directory, chance, 20, process)
        children = builders(process.pid)
        process.kill()
        process.communicate()
        assert_nothing_half(directory)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{child}").exists() for child in children):  # builders end with their trainer
            assert time.monotonic() < deadline, "a builder outlives its trainer"
            time.sleep(0.1)
        assert_nothing_half(directory)
        done += killed
    complete(directory, epochs + 1)


def kill_builder(directory: Path, chance: random.Random, kills: int) -> None:
    """Kill ``kills`` builders of one training: it ends well, and the next one completes what is missing."""
    done = epochs = 0
    while done < kills:
        epochs += kills - done
        process = train(directory, epochs, resume=True)
        said: list[bytes] = []
        # or its messages would fill the pipe
        out = threading.Thread(target=lambda process=process, said=said: said.append(process.communicate()[1]))
        out.start()
        while done < kills and process.poll() is None:
            children = builders(process.pid)
            if not children or not wait_for_a_moment(directory, chance, 8, process):
                time.sleep(0.01)
                continue
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                    done += 1
            assert_nothing_half(directory)
        out.join(600)
        assert process.returncode in (0, FAILURES), f"{process.returncode}: {said[0].decode()[-3000:]}"
        assert_nothing_half(directory)
    complete(directory, epochs + 1)


def complete(directory: Path, epochs: int) -> None:
    """Train on, and find an artifact of the right weights beside every checkpoint that was made."""
    process = train(directory, epochs, resume=True)
    _, log = process.communicate(timeout=900)
    assert process.returncode == 0, log.decode()
    checkpoints = list(directory.glob("*.ckpt"))
    assert len(checkpoints) >= 2
    for checkpoint in checkpoints:
        record = check_artifact(checkpoint.with_suffix(".windows.ep")).manifest.checkpoint
        assert record is not None
        assert record.sha256 == sha256_of(checkpoint), checkpoint
