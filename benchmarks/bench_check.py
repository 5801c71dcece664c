"""What checking the numbers adds to an export: ``python benchmarks/bench_check.py [--model resnet50] [--rounds 3]``.

Both sides export in this process, in turns, after a first export that counts for neither. No GPU is needed.
"""

from __future__ import annotations

import argparse
import statistics
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


def main() -> None:
    """Print the medians, the difference and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50", help="of torchvision (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    module = torchvision.models.get_model(options.model).eval()
    seconds(module, False)
    without, checked = zip(*((seconds(module, False), seconds(module, "auto")) for _ in range(options.rounds)))
    one, other = statistics.median(without), statistics.median(checked)
    print(
        f"{options.model}: {one:.2f} s without, {other:.2f} s with the check: {other - one:+.2f} s, {other / one:.2f}"
    )


if __name__ == "__main__":
    main()
