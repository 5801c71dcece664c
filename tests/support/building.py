"""Functions that stand in for a build where a test wants one that goes wrong; workers import them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def crash(job: Any) -> None:
    """End as a segmentation fault does."""
    print("about to fall", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def killed(job: Any) -> None:
    """End as the kernel ends who takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def devours(job: Any) -> None:
    """Take more and more memory."""
    pieces = []
    for _ in range(200):
        pieces.append(b"x" * 50_000_000)
        time.sleep(0.1)


def hang(job: Any) -> None:
    """Never come back."""
    time.sleep(600)


def surroundings(job: Any) -> dict[str, Any]:
    """What the process is like."""
    import torch

    return {
        "pid": os.getpid(),
        "niceness": os.nice(0),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "first to go": Path("/proc/self/oom_score_adj").read_text().strip(),
        "cuda": torch.cuda.is_initialized(),
    }


def says_what_it_does(job: Any) -> None:
    """Say what a build says, and never come back."""
    from lightning_trt_windows.progress.events import stage

    stage("compile", job.paths.ep.name)
    time.sleep(600)


def raises(job: Any) -> None:
    """Say something, in Python and in C, and raise."""
    print("about to fail")
    os.write(2, b"from C\n")
    raise ValueError("no number")


def meets(job: Any) -> int:
    """Wait until a second build runs as well; the process."""
    here = job.paths.directory
    (here / f"{os.getpid()}.met").touch()
    last = time.monotonic() + 120
    while len(list(here.glob("*.met"))) < 2:
        if time.monotonic() > last:
            raise TimeoutError("alone")
        time.sleep(0.05)
    return os.getpid()


def checkpoint_of_another(path: Path) -> None:
    """Write a checkpoint whose tensors are not those of any program here."""
    import torch

    torch.save({"state_dict": {"other": torch.ones(3)}, "epoch": 0, "global_step": 5}, path)
