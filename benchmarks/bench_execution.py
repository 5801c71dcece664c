"""What it costs a checkpoint to see that the trace still is what the module computes, against a capture.

    python benchmarks/bench_execution.py

One run on the smallest inputs with notes (``execute``), on the GPU where there is one, and a capture of the same module
in the same process. Median of seven; without a GPU in processor time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import torchvision

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.builds.execution import execute
from lightning_trt_windows.capture.program import capture

PROMISE = 50.0
"""Milliseconds at most for ResNet-50 on a GPU."""
GPU = torch.cuda.is_available()


def milliseconds(action: object) -> float:
    """How long ``action`` takes."""
    clock = time.perf_counter if GPU else time.process_time
    started = clock()
    action()  # type: ignore[operator]
    if GPU:
        torch.cuda.synchronize()
    return (clock() - started) * 1000


def main() -> int:
    """Measure, print, compare with the promise."""
    most = 0.0
    for name, size in (("resnet18", 64), ("resnet50", 64), ("resnet50", 224), ("vit_b_16", 224)):
        module = getattr(torchvision.models, name)().to("cuda" if GPU else "cpu")
        inputs = {"x": InputSpec((DimRange(1, 8, 32), 3, size, size))}
        first = milliseconds(lambda: execute(module, inputs))  # noqa: B023 -- called at once
        later = statistics.median(milliseconds(lambda: execute(module, inputs)) for _ in range(7))  # noqa: B023
        captured = milliseconds(lambda: capture(module, inputs))  # noqa: B023
        most = max(most, later if name == "resnet50" else 0.0)
        print(
            f"{name:10} {size:4}  first {first:6.0f} ms, later {later:6.1f} ms, a capture {captured:6.0f} ms, "
            f"ratio {later / captured:.3f}",
            flush=True,
        )
    return int(GPU and most > PROMISE)


if __name__ == "__main__":
    sys.exit(main())
