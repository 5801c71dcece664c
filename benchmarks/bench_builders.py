"""What the later builds of a run take in a builder process that stays, against a fresh process for each.

    python benchmarks/bench_builders.py
    python benchmarks/bench_builders.py --model resnet50 --builds 4

Each build is one of ``when="checkpoint"``: the module is captured once, and each job has a checkpoint with weights of
its own. The two sides take turns, one build at a time. Measured from handing the job over to the artifact, and
the time of the processor that the builder process takes for it, which other programs change less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
from torch import nn

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.builds.executors.memory_limit import memory_taken
from lightning_trt_windows.builds.executors.process import BuildProcess
from lightning_trt_windows.export.job import Job
from lightning_trt_windows.export.pipeline import build

__all__ = ["main"]

TARGET = 3.0
"""Times faster, at least."""


def model_of(name: str) -> tuple[nn.Module, InputSpec]:
    """A module with random weights, and what it takes."""
    batch = DimRange(1, 2, 8)
    if name == "mlp":
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)), InputSpec((batch, 64))
    import torchvision

    return getattr(torchvision.models, name)(), InputSpec((batch, 3, 224, 224))


def built(executor: BuildProcess, job: Job) -> tuple[float, float, Any]:
    """Seconds from handing ``job`` over to its artifact, seconds of the processor, and the artifact."""
    before, started = processor_seconds(), time.perf_counter()
    artifact = executor.submit(build, job).result()
    return time.perf_counter() - started, processor_seconds() - before, artifact


def processor_seconds() -> float:
    """What all builder processes that live have taken until now."""
    times = (child.cpu_times() for child in psutil.Process().children())
    return sum(taken.user + taken.system for taken in times)


def main() -> int:
    """Measure, print, compare with the target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet18", help="mlp, or a model of torchvision (default: %(default)s)")
    parser.add_argument("--builds", type=int, default=5, help="on each side, the first one included")
    parser.add_argument("--niceness", type=int, default=0, help="0 here, for other programs must not decide")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    warm: list[tuple[float, float]] = []
    fresh: list[tuple[float, float]] = []
    held: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from support.jobs import jobs_of

        module, spec = model_of(arguments.model)
        argument = "input" if arguments.model == "mlp" else "x"
        jobs = jobs_of(module, spec, Path(directory), arguments.builds, argument=argument, std=0.02)
        stays = BuildProcess(niceness=arguments.niceness, workers=1)
        print(f"{arguments.model}, seconds a build, and of the processor")
        print(f"{'build':>6}{'stays':>8}{'cpu':>8}{'fresh':>8}{'cpu':>8}{'held after, GB':>16}")
        for number, job in enumerate(jobs):
            *took, kept = built(stays, job)
            warm.append((took[0], took[1]))
            held.append(sum(memory_taken(child.pid) for child in psutil.Process().children()) / 1e9)
            anew = BuildProcess(niceness=arguments.niceness, workers=1)
            *took, other = built(anew, job)
            anew.shutdown()
            fresh.append((took[0], took[1]))
            assert [e.sha256 for e in kept.manifest.engines] == [e.sha256 for e in other.manifest.engines]
            figures = "".join(f"{value:8.2f}" for value in (*warm[-1], *fresh[-1]))
            print(f"{number + 1:6}{figures}{held[-1]:16.2f}", flush=True)
        stays.shutdown()
    later, later_processor = map(statistics.median, zip(*warm[1:], strict=True))
    anew_each, anew_processor = map(statistics.median, zip(*fresh, strict=True))
    ratio = anew_each / later
    print(f"median of later builds {later:.2f} s ({later_processor:.2f} s of the processor)")
    print(f"median of fresh processes {anew_each:.2f} s ({anew_processor:.2f} s of the processor)")
    print(f"ratio {ratio:.1f}, of the processor {anew_processor / later_processor:.1f}; the target is {TARGET:.0f}")
    return int(ratio < TARGET)


if __name__ == "__main__":
    sys.exit(main())
