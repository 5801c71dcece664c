"""Time and memory of writing the artifact, against upstream's save made to work.

    python benchmarks/bench_save.py --model resnet50
    python benchmarks/bench_save.py --model vit_l --repeat 1

Each measurement is a process of its own: capture, compile (by our backend, or by upstream's function), then save once,
which is what is measured. The two sides take turns. Additional memory is the highest resident size while saving, less
the resident size before it, as a multiple of the engine's size. Linux only: it reads ``/proc/self``.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.program import capture

__all__ = ["main"]

INPUTS = {"x": InputSpec((DimRange(1, 8, 32, name="batch"), 3, 224, 224))}
TARGET_RATIO = 20.0
TARGET_MEMORY = 0.2
"""Additional memory of our side, as a multiple of the engine's size."""


def model(name: str) -> torch.nn.Module:
    """A model in float32 with random weights, the same in every process; nothing is downloaded."""
    torch.manual_seed(0)
    if name == "resnet50":
        from torchvision.models import resnet50

        return resnet50().eval()
    import timm

    return timm.create_model("vit_large_patch16_224").eval()


def measured(save: Callable[[], object]) -> dict[str, float]:
    """Seconds, seconds of processor, and bytes of memory that the call needed beyond what the process held before."""
    gc.collect()
    # memory that malloc keeps from the compile would hide what the save needs
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts over
    before = _status("VmRSS")
    started, busy = time.perf_counter(), time.process_time()
    save()
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - busy,
        "memory": max(0, _status("VmHWM") - before),
    }


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise KeyError(key)


def ours(name: str, path: Path) -> dict[str, Any]:
    """Our writer, as ``export.build`` calls it."""
    from lightning_trt_windows.backends import get_backend
    from lightning_trt_windows.export.pipeline import _write_program
    from lightning_trt_windows.settings import ExportSettings

    program = capture(model(name), INPUTS).program
    compiled = get_backend("tensorrt_rtx").compile(program, ExportSettings())
    del program
    result = measured(lambda: _write_program(path, compiled))
    return result | engines([engine.plan for engine in compiled.engines.values()], path)


def upstream(name: str, path: Path) -> dict[str, Any]:
    """Upstream's function and its save, patched until they work."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support import upstream_reference

    torch_tensorrt = upstream_reference.import_fixed()
    program = capture(model(name), INPUTS).program
    compiled = upstream_reference.cross_compile(torch_tensorrt, program)
    del program
    result = measured(lambda: upstream_reference.save(compiled, str(path)))
    return result | engines([m.serialized_engine for m in compiled.children() if hasattr(m, "serialized_engine")], path)


def engines(plans: list[Any], path: Path) -> dict[str, Any]:
    """What was saved: that both sides saved the same thing shows in these."""
    digest = hashlib.sha256()
    for plan in plans:
        digest.update(plan)
    return {
        "engines": len(plans),
        "engine": sum(memoryview(plan).nbytes for plan in plans),
        "sha256": digest.hexdigest(),
        "file": path.stat().st_size,
    }


SIDES = {"ours": ours, "upstream": upstream}


def in_a_process(side: str, name: str, directory: str) -> dict[str, Any]:
    """One measurement; upstream's patches and its memory end with the process."""
    command = [sys.executable, __file__, "--model", name, "--side", side, "--directory", directory]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"  {side:8}  {result['seconds']:8.2f} s ({result['cpu']:.2f} s of processor)  "
        f"{result['memory'] / result['engine']:6.2f} x engine ({result['memory'] / 1e6:.0f} MB); "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return result


def main() -> None:
    """Measure, print the table, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=("resnet50", "vit_l"), default="resnet50")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each side (default: %(default)s)")
    parser.add_argument("--ours-only", action="store_true", help="upstream's save of vit_l needs 20 GB of memory")
    parser.add_argument("--directory", default=None, help="where the files go for a moment (default: a temporary one)")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        if arguments.side:
            print(json.dumps(SIDES[arguments.side](arguments.model, Path(directory) / "model.ep")))
            return
        print(f"{arguments.model}, float32, batch 1..8..32, saving only:", flush=True)
        sides = ["ours"] if arguments.ours_only else list(SIDES)
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(arguments.repeat):
            for side in sides:
                results[side].append(in_a_process(side, arguments.model, directory))
    print(report(results))


def report(results: dict[str, list[dict[str, Any]]]) -> str:
    """Medians and fastest, their ratios, and the targets, which the fastest answer to: other load only adds."""
    lines = []
    for side, runs in results.items():
        one = runs[0]
        lines.append(
            f"{side:8}  median {median(runs, 'seconds'):.2f} s, fastest {fastest(runs, 'seconds'):.2f} s "
            f"({fastest(runs, 'cpu'):.2f} s of processor), {median(runs, 'memory') / one['engine']:.2f} x engine; "
            f"{one['engines']} engine of {one['engine'] / 1e6:.1f} MB (sha256 {one['sha256'][:12]}), "
            f"file of {one['file'] / 1e6:.1f} MB"
        )
    memory = median(results["ours"], "memory") / results["ours"][0]["engine"]
    lines.append(f"memory of ours: {memory:.2f} x engine, {verdict(memory <= TARGET_MEMORY)} (at most {TARGET_MEMORY})")
    if "upstream" in results:
        by_median, ratio, cpu = (
            of(results["upstream"], key) / of(results["ours"], key)
            for of, key in ((median, "seconds"), (fastest, "seconds"), (fastest, "cpu"))
        )
        lines.append(f"processor time: {cpu:.1f} times less (ours keeps two processors busy)")
        lines.append(
            f"time: {ratio:.1f} times faster, by medians {by_median:.1f} times, "
            f"{verdict(ratio >= TARGET_RATIO)} (at least {TARGET_RATIO:.0f})"
        )
    return "\n".join(lines)


def median(runs: list[dict[str, Any]], key: str) -> float:
    """Of one figure over all runs."""
    return statistics.median(run[key] for run in runs)


def fastest(runs: list[dict[str, Any]], key: str) -> float:
    """Smallest of one figure over all runs."""
    return min(float(run[key]) for run in runs)


def verdict(reached: bool) -> str:
    """In one word."""
    return "reached" if reached else "MISSED"


if __name__ == "__main__":
    main()
