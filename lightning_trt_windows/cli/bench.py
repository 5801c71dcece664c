"""The command ``bench``: how fast an artifact is on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_trt_windows.cli.console import print_json

__all__ = ["add"]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to ``commands``."""
    parser = commands.add_parser(
        "bench",
        parents=[common],
        help="measure latency and throughput of an artifact on this machine",
        description="Measure an artifact on this machine's GPU: latency (P50, P90, P99), throughput and the time of "
        "the first call, at the smallest, usual and largest batch and powers of two between them.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the .windows.ep or the .windows.json")
    add("--device", default="cuda:0", help="the GPU (default: %(default)s)")
    add("--calls", type=int, default=100, metavar="N", help="calls to time at each batch (default: %(default)s)")
    add("--batch", type=int, action="append", metavar="N", help="measure this batch; may be repeated")
    add("--onnx", metavar="FILE", help="measure this .onnx of the artifact with ONNX Runtime beside it")
    add("--runtime-cache", metavar="FILE", help="file for TensorRT-RTX's compiled kernels")
    add("--cuda-graphs", action="store_true", help="record each engine's kernels and replay them")
    add("--write", action="store_true", help="write the figures beside the artifact, for report")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    # here and not above: this brings torch, which takes seconds
    from lightning_trt_windows.artifact.artifact import read_artifact
    from lightning_trt_windows.verification.bench import bench, write_bench

    found = bench(
        arguments.file,
        device=arguments.device,
        calls=arguments.calls,
        batches=arguments.batch,
        onnx=arguments.onnx,
        runtime_cache=arguments.runtime_cache,
        cuda_graphs=arguments.cuda_graphs,
    )
    if arguments.json:
        print_json(found.to_dict())
    else:
        print(found)
    if arguments.write:
        write_bench(read_artifact(Path(arguments.file)), found)
    return 0
