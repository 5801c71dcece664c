"""What one call costs on a GPU: an artifact against the bare engine, eager PyTorch and ``torch.compile``.

    python benchmarks/bench_call.py [--model resnet50] [--batches 1 8] [--autotune]

Needs an NVIDIA GPU, torchvision and TensorRT-RTX. Host time is what the calling thread spends until the work is
queued, which is where our Python shows; latency is until the GPU has finished. The bare ``execute_async_v3`` is that of
the very context that ``load`` runs, with the memory of the call before: the same kernels, and nothing but them.
Everything is float16, the artifact by ``precision="16"``; its inputs and outputs stay float32. All sides run in this
process, one after the other, in rounds; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from lightning_trt_windows import Artifact, DimRange, InputSpec, export_module, load

OVERHEAD = 50e-6
"""Seconds of host time that a call may take beyond the bare ``execute_async_v3``."""
SPECIALIZATION: Literal["lazy"] = "lazy"
"""TensorRT-RTX's own choice, also on GPUs where ``load`` would take another."""
QUEUED = 4
"""Calls between synchronizations: more would fill the GPU's queue, and the host would wait for it."""


def main() -> int:
    """Measure and print; 1 where the promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="any torchvision model")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--autotune", action="store_true", help="torch.compile(mode='max-autotune') too: minutes")
    options = parser.parse_args()
    import torchvision

    torch.manual_seed(0)
    module = getattr(torchvision.models, options.model)().eval()
    with tempfile.TemporaryDirectory() as folder:
        inputs = {"x": InputSpec((DimRange(1, 8, 32), 3, 224, 224))}
        artifact = export_module(module, inputs, Path(folder) / "m.windows.ep", precision="16")
        sides = make_sides(artifact, module.cuda(), autotune=options.autotune)
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {artifact.manifest.versions}")
        kept = [measure(sides, module, batch, options.rounds) for batch in options.batches]
    return 0 if all(kept) else 1


def make_sides(artifact: Artifact, module: torch.nn.Module, *, autotune: bool) -> dict[str, Callable[[Any], Any]]:
    """Name to a callable of a float32 batch."""
    import copy

    half = copy.deepcopy(module).half()
    compiled = torch.compile(half, dynamic=False)  # a program for each batch size, as the rivals are best
    ours = Ours(artifact)
    sides: dict[str, Callable[[Any], Any]] = {
        "load": ours,
        "execute_async_v3": ours.bare,  # after the call that binds its memory
        "load, cuda_graphs": Ours(artifact, cuda_graphs=True),
        "eager": lambda x: half(x.half()),
        "torch.compile": lambda x: compiled(x.half()),
    }
    if autotune:
        tuned = torch.compile(copy.deepcopy(half), mode="max-autotune", dynamic=False)
        sides["max-autotune"] = lambda x: tuned(x.half())
    return sides


class Ours:
    """What ``load`` gives, and its engine without it."""

    def __init__(self, artifact: Artifact, **options: Any) -> None:
        self.module = load(artifact.path, kernel_specialization=SPECIALIZATION, **options)
        engine: Any = self.module._program.engine_0
        self.execution = engine._threads.execution

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Call the module; as a rule a caller has one output while the next one is made."""
        self.output: torch.Tensor = self.module(x)
        return self.output

    def bare(self, x: torch.Tensor) -> torch.Tensor:
        """Enqueue the engine with what the last call has bound, where that call has run it."""
        self.execution.context.execute_async_v3(self.execution._streams.handle)
        return self.output


def measure(sides: dict[str, Callable[[Any], Any]], module: torch.nn.Module, batch: int, rounds: int) -> bool:
    """Print the table for one batch size; whether the promise is kept."""
    x = torch.randn(batch, 3, 224, 224, device="cuda")
    host: dict[str, list[float]] = {name: [] for name in sides}
    whole: dict[str, list[float]] = {name: [] for name in sides}
    error: dict[str, float] = {}
    with torch.no_grad():
        wanted = module(x)
        for name, side in sides.items():
            for _ in range(10):  # compiles, tunes, specializes kernels in the background
                result = side(x)
            torch.cuda.synchronize()
            time.sleep(2)
            error[name] = float((result.float() - wanted).norm() / wanted.norm())
        ours = overhead(sides["load"], sides["execute_async_v3"], x, rounds)
        for _ in range(rounds):
            for name, side in sides.items():
                side(x)
                torch.cuda.synchronize()
                host[name].append(timed(side, x, QUEUED, wait=False))
                torch.cuda.synchronize()
                whole[name].append(timed(side, x, 1, wait=True))
    print(f"\nbatch {batch}\n\n| | host | latency | against eager | images a second | error |\n|{'---|' * 6}")
    eager = statistics.median(whole["eager"])
    for name in sides:
        cpu, latency = statistics.median(host[name]), statistics.median(whole[name])
        print(
            f"| {name} | {cpu * 1e6:.0f} us | {latency * 1e6:.0f} us | {eager / latency:.2f} | "
            f"{batch / latency:.0f} | {error[name]:.1e} |"
        )
    print(f"\nours over the bare engine: {ours * 1e6:.0f} us of host time, promised at most {OVERHEAD * 1e6:.0f}")
    return ours <= OVERHEAD


def overhead(call: Callable[[Any], Any], bare: Callable[[Any], Any], x: torch.Tensor, rounds: int) -> float:
    """Seconds of host time that a call takes beyond the bare engine: the median of pairs, each side first in turn.

    By themselves: after one of the other sides the processor's caches are theirs, and whoever comes next pays for it.
    """
    differences = []
    for number in range(4 * rounds):
        found: dict[Any, float] = {}
        for side in (call, bare) if number % 2 else (bare, call):
            side(x)
            torch.cuda.synchronize()
            found[side] = timed(side, x, QUEUED, wait=False)
            torch.cuda.synchronize()
        differences.append(found[call] - found[bare])
    return statistics.median(differences)


def timed(side: Callable[[Any], Any], x: torch.Tensor, calls: int, *, wait: bool) -> float:
    """Seconds a call."""
    started = time.perf_counter()
    for _ in range(calls):
        side(x)
    if wait:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / calls


if __name__ == "__main__":
    sys.exit(main())
