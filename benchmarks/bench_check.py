"""What checking the numbers adds to an export: ``python benchmarks/bench_check.py [--model vit_l_16] [--memory]``.

Both sides export in this process, in turns, after a first export that counts for neither. With ``--memory`` each side
exports once more in a process of its own, whose peak is what counts. No GPU is needed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torchvision

from lightning_trt_windows import DimRange, InputSpec, export_module


def seconds(module: Any, check: Any) -> float:
    """What one export takes."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        inputs = {"x": InputSpec((DimRange(1, 8, 32), 3, 224, 224))}
        export_module(module, inputs, Path(folder) / "m.windows.ep", check=check)
        return time.perf_counter() - started


def peak(model: str, check: str) -> float:
    """GiB that a process has in memory at most while it exports once."""
    command = [sys.executable, __file__, "--model", model, "--one", check]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(printed.split()[-1])


def main() -> None:
    """Print the medians, the difference and the ratio, and the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=["resnet50"], help="of torchvision (default: resnet50)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peak memory of both sides as well")
    parser.add_argument("--one", choices=["off", "auto"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        seconds(torchvision.models.get_model(options.model[0]).eval(), options.one == "auto" and "auto")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    for model in options.model:
        module = torchvision.models.get_model(model).eval()
        seconds(module, False)
        without, checked = zip(*((seconds(module, False), seconds(module, "auto")) for _ in range(options.rounds)))
        one, other = statistics.median(without), statistics.median(checked)
        print(f"{model}: {one:.2f} s without, {other:.2f} s with the check: {other - one:+.2f} s, {other / one:.2f}")
        del module
        if options.memory:
            off, on = peak(model, "off"), peak(model, "auto")
            print(f"{model}: {off:.2f} GiB at most without, {on:.2f} GiB with the check: {on - off:+.2f} GiB")


if __name__ == "__main__":
    main()
