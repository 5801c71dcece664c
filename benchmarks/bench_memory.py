"""Peak memory and time of an export by the size of the weights.

    python benchmarks/bench_memory.py                            # 1 and 2 GB, all sides
    python benchmarks/bench_memory.py --sizes 1 2 6 --sides checkpoint builder

Each measurement is a process of its own, which imports everything first. ``checkpoint`` is ``export_checkpoint``,
``builder`` the build that an executor is given while a training goes on (a saved program with the weights of a
checkpoint), ``module`` is ``export_module`` of a module that stays the caller's. ``upstream`` is the alternative:
``torch.export.export`` and ``cross_compile_for_windows``, patched until it works, as in ``bench_export.py``; it saves
nothing.

Peak is the largest resident size (``VmHWM``) less 1 GB, about what the imports take. It counts the pages of mapped
files (the checkpoint, the engine on its way to the disk), which the system takes back where it needs memory; without
them is what can never be taken back. The model is a stack of ``nn.Linear(4096, 4096)`` with random weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec

__all__ = ["main"]

TARGET = 2.2
"""Times the weights, at most, plus 1 GB."""
WIDTH = 4096
INPUTS = {"x": InputSpec((DimRange(1, 2, 8), WIDTH))}


class Wide(L.LightningModule):
    """Layers of 67 MB each."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())))

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of numbers."""
        result: Tensor = self.net(x)
        return result


def layers_of(gigabytes: float) -> int:
    """How many layers have so many gigabytes of weights."""
    return max(1, round(gigabytes * 1e9 / (WIDTH * (WIDTH + 1) * 4)))


def write_checkpoint(path: Path, layers: int) -> None:
    """What Lightning would write, layer by layer into one file."""
    module = Wide(layers)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=(2 / WIDTH) ** 0.5)
    torch.save(
        {
            "state_dict": module.state_dict(),
            "epoch": 0,
            "global_step": 1,
            "pytorch-lightning_version": L.__version__,
            "hyper_parameters": dict(module.hparams),
        },
        path,
    )


def of_checkpoint(checkpoint: Path, layers: int, check: Any) -> Callable[[], Any]:
    """``export_checkpoint``."""
    from lightning_trt_windows import export_checkpoint

    return lambda: export_checkpoint(checkpoint, Wide, inputs=INPUTS, output=checkpoint.parent / "out", check=check)


def of_builder(checkpoint: Path, layers: int, check: Any) -> Callable[[], Any]:
    """The program is saved before the clock starts, by another process, as a training does."""
    from lightning_trt_windows.export.pipeline import build

    job = torch.load(checkpoint.parent / "job.pt", weights_only=False)
    return lambda: build(replace(job, settings=replace(job.settings, check=check)))


def of_module(checkpoint: Path, layers: int, check: Any) -> Callable[[], Any]:
    """``export_module``: once the weights are the module's, which stays."""
    from lightning_trt_windows import export_module

    def whole() -> Any:
        module = Wide.load_from_checkpoint(checkpoint, map_location="cpu").eval()
        return export_module(module, INPUTS, checkpoint.parent / "out" / "m.windows.ep", check=check)

    return whole


def of_upstream(checkpoint: Path, layers: int, check: Any) -> Callable[[], Any]:
    """Capture and upstream's compile."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support import upstream_reference

    torch_tensorrt = upstream_reference.import_fixed()

    def whole() -> Any:
        module = Wide.load_from_checkpoint(checkpoint, map_location="cpu").eval()
        batch = torch.export.Dim("batch", min=1, max=8)
        program = torch.export.export(module, (torch.rand(2, WIDTH),), dynamic_shapes=({0: batch},), strict=False)
        return upstream_reference.cross_compile(torch_tensorrt, program)

    return whole


SIDES = {"checkpoint": of_checkpoint, "builder": of_builder, "module": of_module, "upstream": of_upstream}


def save_job(checkpoint: Path) -> None:
    """Capture, and save what an executor would be given."""
    from lightning_trt_windows.artifact.artifact import ArtifactPaths
    from lightning_trt_windows.discovery.discover import discover
    from lightning_trt_windows.export.job import SavedProgram
    from lightning_trt_windows.export.options import ExportOptions
    from lightning_trt_windows.export.pipeline import prepare

    module = Wide.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    job = prepare(module, discover(module, inputs=INPUTS), ArtifactPaths.beside(checkpoint), ExportOptions())
    saved = job.saved(checkpoint.parent / "program.pt2")
    program = SavedProgram(checkpoint.parent / "program.pt2", checkpoint)
    torch.save(replace(saved, program=program, is_mapped=True), checkpoint.parent / "job.pt")


def status() -> dict[str, float]:
    """Gigabytes by the kernel's names."""
    with Path("/proc/self/status").open() as file:
        return {line.split(":")[0]: int(line.split()[1]) / 1e6 for line in file if line.startswith(("Rss", "Vm"))}


def measured(whole: Callable[[], Any]) -> dict[str, float]:
    """Seconds, and the peaks in gigabytes."""
    anonymous, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            anonymous[0] = max(anonymous[0], status()["RssAnon"])

    before = status()
    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    whole()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return {"seconds": seconds, "peak": status()["VmHWM"] - 1, "anonymous": anonymous[0] - before["RssAnon"]}


def in_a_process(side: str, checkpoint: Path, layers: int, check: str) -> dict[str, float]:
    """One measurement."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", side, "--checkpoint", str(checkpoint)]
    command += ["--layers", str(layers), "--check", check]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if side != "job" else {}
    return result


def main() -> int:
    """Measure, print the table, and say whether the target is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1.0, 2.0], help="gigabytes of weights")
    parser.add_argument("--sides", choices=tuple(SIDES), nargs="+", default=list(SIDES))
    parser.add_argument("--check", choices=("auto", "full", "off"), default="auto", help="of the numbers")
    parser.add_argument("--directory", type=Path, help="a disk with 5 times the weights of free space")
    parser.add_argument("--one", choices=(*SIDES, "job"), help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.one == "job":
        save_job(arguments.checkpoint)
        return 0
    if arguments.one:
        from lightning_trt_windows._compat.torch_tensorrt import upstream

        upstream()
        check = False if arguments.check == "off" else arguments.check
        print(json.dumps(measured(SIDES[arguments.one](arguments.checkpoint, arguments.layers, check))))
        return 0
    missed = []
    print(f"{'weights':>10}{'side':>12}{'peak - 1 GB':>13}{'/ weights':>11}", end="")
    print(f"{'without files':>15}{'/ weights':>11}{'seconds':>9}{'/ GB':>7}", flush=True)
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            checkpoint, layers = Path(directory) / "last.ckpt", layers_of(size)
            write_checkpoint(checkpoint, layers)
            weights = layers * WIDTH * (WIDTH + 1) * 4 / 1e9
            if "builder" in arguments.sides:
                in_a_process("job", checkpoint, layers, arguments.check)
            for side in arguments.sides:
                found = in_a_process(side, checkpoint, layers, arguments.check)
                peak, anonymous, seconds = found["peak"], found["anonymous"], found["seconds"]
                print(f"{weights:>7.2f} GB{side:>12}{peak:>10.2f} GB{peak / weights:>11.2f}", end="")
                print(f"{anonymous:>12.2f} GB{anonymous / weights:>11.2f}", end="")
                print(f"{seconds:>9.1f}{seconds / weights:>7.1f}", flush=True)
                if side in ("checkpoint", "builder") and peak > TARGET * weights:
                    missed.append(f"{side} of {weights:.2f} GB")
    print(f"at most {TARGET} times the weights and 1 GB: {'MISSED by ' + ', '.join(missed) if missed else 'reached'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
