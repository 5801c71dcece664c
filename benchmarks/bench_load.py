"""How fast an artifact loads, against ``torch.export.load(...).module()`` on the same file in the same run.

    python benchmarks/bench_load.py [resnet50 | vit_l_16 | any torchvision model | FILE.ep] [--no-stock]

Each side runs in processes of its own. Time is from PyTorch imported to the first call possible, without deserializing
the engines, which needs a GPU and costs both sides the same; what is read, checked and decoded for it is included.
Memory is the process's peak over what it had with PyTorch imported, in multiples of the engines' bytes. Start is what a
process that imports this package and loads a linear layer takes longer than one that imports PyTorch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

PROMISES = {"resnet50": (30, 1.5), "vit_l_16": (50, 1.5)}
"""Model to (times faster than stock, peak memory in engines)."""
START = 0.5
"""Seconds that a start may take longer than PyTorch's import, but for the file."""

CHILD = """
import sys, time, torch
def kib(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
def ours(path):
    from lightning_trt_windows.artifact.artifact import read_artifact
    from lightning_trt_windows.runtime.loading import load_program
    return load_program(read_artifact(path), torch.device("cpu"), lambda record, plan: lambda inputs: [])
def stock(path):
    return torch.export.load(path).module()
if sys.argv[3:]:
    # what importing torch_tensorrt (5 s) would do for the stock loader
    arguments = ", ".join(f"str {name}" for name in sys.argv[3:])
    schema = f"(Tensor[] inputs, {arguments}) -> Tensor[]"
    torch.library.define("tensorrt::no_op_placeholder_for_execute_engine", schema)
before = dict(start=time.perf_counter(), memory=kib("VmRSS"))
{"ours": ours, "stock": stock, "nothing": lambda path: None}[sys.argv[1]](sys.argv[2])
print(time.perf_counter() - before["start"], (kib("VmHWM") - before["memory"]) * 1024)
"""


def main() -> int:
    """Measure and print; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--no-stock", action="store_true", help="stock needs 23 GB and minutes for a ViT-L")
    parser.add_argument("--repeat", type=int, default=3, help="runs of our side; the best counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.model) if options.model.endswith(".ep") else export(options.model, Path(folder))
        manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        engines = sum(engine["size"] for engine in manifest["engines"])
        print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, engines {engines / 1e6:.0f} MB")
        seconds, memory = min(measure("ours", path) for _ in range(options.repeat))
        print(f"load   {seconds:8.2f} s   peak {memory / engines:5.2f} x engines ({memory / 1e6:.0f} MB)")
        more = start(Path(folder), 2 * options.repeat)
        print(f"start  {more:8.2f} s more than PyTorch's import")
        kept = more <= START and memory <= PROMISES.get(options.model, (0, 1e9))[1] * engines
        if not options.no_stock:
            stock, stock_memory = measure("stock", path)
            print(f"stock  {stock:8.2f} s   peak {stock_memory / engines:5.2f} x engines ({stock_memory / 1e6:.0f} MB)")
            print(f"       {stock / seconds:8.1f} times faster")
            kept = kept and stock / seconds >= PROMISES.get(options.model, (0, 0))[0]
    return 0 if kept else 1


def export(name: str, folder: Path) -> Path:
    """An artifact of a torchvision model with random weights: batches of 1 to 32 images."""
    import torchvision

    from lightning_trt_windows import DimRange, InputSpec, export_module

    started = time.perf_counter()
    inputs = {"x": InputSpec((DimRange(1, 8, 32), 3, 224, 224))}
    artifact = export_module(getattr(torchvision.models, name)().eval(), inputs, folder / f"{name}.windows.ep")
    print(f"exported {name} in {time.perf_counter() - started:.0f} s")
    return artifact.path


def measure(side: str, path: Path) -> tuple[float, int]:
    """Seconds and bytes of one side, in a process of its own."""
    names = engine_arguments(path) if side == "stock" else []
    command = [sys.executable, "-c", CHILD, side, str(path), *names]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, memory = output.split()[-2:]
    return float(seconds), int(memory)


def start(folder: Path, repeat: int) -> float:
    """Seconds that a process needs to import and load hardly any bytes, over one that imports PyTorch."""
    from torch import nn

    from lightning_trt_windows import DimRange, InputSpec, export_module

    path = export_module(nn.Linear(4, 4), {"input": InputSpec((DimRange(1, 2, 8), 4))}, folder / "tiny.windows.ep").path

    def whole(side: str) -> float:
        started = time.perf_counter()
        measure(side, path)
        return time.perf_counter() - started

    # in turns, so that a busy moment hits both
    pairs = [(whole("nothing"), whole("ours")) for _ in range(repeat)]
    nothing, ours = map(min, zip(*pairs))
    return ours - nothing


def engine_arguments(path: Path) -> list[str]:
    """Names of the arguments of the operator that stands for an engine, as the file gives them."""
    with zipfile.ZipFile(path) as archive:
        program = json.loads(archive.read("archive/models/model.json"))
    nodes = program["graph_module"]["graph"]["nodes"]
    engine = next(node for node in nodes if "no_op_placeholder_for_execute_engine" in node["target"])
    return [argument["name"] for argument in engine["inputs"][1:]]


if __name__ == "__main__":
    sys.exit(main())
