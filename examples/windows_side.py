"""The Windows side: load an artifact, call it, and see how long a call takes at each size it was made for.

    python windows_side.py model.windows.ep

Its ``.windows.json`` lies beside the ``.ep``. It needs PyTorch for CUDA and TensorRT's Python bindings in the versions
that the manifest names, and this package without extras; neither Lightning nor Torch-TensorRT is needed. The same file
runs on Linux with a GPU, as a dry run (rehearsal).
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from typing import Any

import torch

from lightning_trt_windows import inspect, load
from lightning_trt_windows.errors import EnvironmentMismatchError


def shapes(value: Any) -> str:
    """What a call takes or gives, as text; containers as they are nested."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shapes(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(shapes(inner) for inner in value)})"
    return repr(value)


def milliseconds(module: Any, arguments: dict[str, Any], repeat: int) -> float:
    """Median time of a call, the GPU's work included, after calls that let TensorRT compile its kernels."""
    for _ in range(10):
        module(**arguments)
    times = []
    for _ in range(repeat):
        torch.cuda.synchronize()
        start = time.perf_counter()
        module(**arguments)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> int:
    """Load, call, time. Returns 0, or 3 on a machine that the artifact does not run on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("artifact", help="the .ep or its .json; the other one lies beside it")
    parser.add_argument("--cache", help="file for the kernels that TensorRT-RTX compiles: the next start is faster")
    parser.add_argument("--repeat", type=int, default=100)
    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):  # a console's code page may lack letters of a file name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    # needs no GPU, and unpickles nothing
    print(f"{arguments.artifact} takes")
    for spec in inspect(arguments.artifact).manifest.inputs:
        print(f"  {spec.name}: {spec.dtype} from {list(spec.min)} to {list(spec.max)}, tuned for {list(spec.opt)}")
    try:
        module = load(arguments.artifact, runtime_cache=arguments.cache)
    except EnvironmentMismatchError as error:
        print(f"\nIt does not run on this machine:\n{error}")
        print("\nCopy both files to a PC with an NVIDIA GPU, and run this file there.")
        return error.exit_code

    print(f"\non {torch.cuda.get_device_name()}:")
    for size in ("min", "opt", "max"):
        call = module.example_arguments(size)
        print(f"  {size}: {shapes(module(**call))}, {milliseconds(module, call, arguments.repeat):.2f} ms a call")
    return 0


if __name__ == "__main__":
    sys.exit(main())
