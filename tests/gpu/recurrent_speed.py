"""Recurrent nets on a GPU: an engine's loop against PyTorch (cuDNN), for some sizes; JSON with every number.

PyTorch takes part twice: as the module itself, and as an artifact whose operator is a fallback.

Two commands, on the same machine or on two, with torch of the same minor version and the same TensorRT-RTX::

    python tests/gpu/recurrent_speed.py build DIR              # no GPU needed
    python tests/gpu/recurrent_speed.py run DIR OUT.json       # an NVIDIA GPU

``build`` exports each net of ``NETS`` once, with a length and a batch that may vary, and keeps its weights. ``run``
times all three for every size of ``SIZES`` in turns, in the same process, and compares outputs with float64 on the CPU.
Times are medians of calls that are waited for, in milliseconds; ``ratio`` is the engine's over the fallback's, so below
1 the engine is faster. The module has flattened weights, and cuDNN may use TF32, which is PyTorch's default for it.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module, load

STEPS, BATCH = DimRange(1, 100, 2048, name="steps"), DimRange(1, 4, 64, name="batch")
SIZES = ((1, 1), (1, 100), (1, 589), (1, 2048), (8, 100), (8, 589), (64, 100), (64, 589))
"""Batch and steps."""
ROUNDS = 20


class Output(nn.Module):
    """The output of a recurrent net."""

    def __init__(self, net: nn.RNNBase) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


NETS: dict[str, tuple[Callable[[], nn.RNNBase], str]] = {
    "lstm_64": (lambda: nn.LSTM(64, 64, batch_first=True), "float32"),
    "bilstm_128_4_layers": (lambda: nn.LSTM(60, 128, 4, batch_first=True, bidirectional=True), "float32"),
    "bilstm_128_4_layers_half": (lambda: nn.LSTM(60, 128, 4, batch_first=True, bidirectional=True), "float16"),
    "lstm_512_2_layers": (lambda: nn.LSTM(512, 512, 2, batch_first=True), "float32"),
    "gru_256_2_layers": (lambda: nn.GRU(256, 256, 2, batch_first=True), "float32"),
}


def net(name: str) -> Output:
    """A net of ``NETS``, with the same weights each time."""
    torch.manual_seed(0)
    make, dtype = NETS[name]
    return Output(make()).eval().to(getattr(torch, dtype))


def build(folder: Path) -> None:
    """Export every net."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, dtype) in NETS.items():
        started = time.perf_counter()
        module = net(name)
        inputs = {"x": InputSpec((BATCH, STEPS, module.net.input_size), dtype=dtype)}
        artifact = export_module(module, inputs, folder / f"{name}.windows.ep", check=False)
        assert artifact.manifest.fallback_ops == (), artifact.manifest.fallback_ops
        executed = {"torch_executed_ops": [f"torch.ops.aten.{type(module.net).__name__.lower()}.input"]}
        export_module(module, inputs, folder / f"{name}.fallback.windows.ep", check=False, compile_options=executed)
        torch.save(module.state_dict(), folder / f"{name}.pt")
        size = sum(engine.size for engine in artifact.manifest.engines)
        print(f"{name:26} {time.perf_counter() - started:6.1f} s {size / 1e6:7.1f} MB", flush=True)


def milliseconds(call: Callable[[], Any]) -> float:
    """Of one call."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative norm."""
    return float((found.cpu().double() - wanted).norm() / wanted.norm())


@torch.no_grad()
def run(folder: Path, out: Path) -> None:
    """Time and compare."""
    records = []
    for name in NETS:
        module = net(name)
        module.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
        exact, eager = net(name), module.cuda()
        exact.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
        exact = exact.double()
        engine, fallback = load(folder / f"{name}.windows.ep"), load(folder / f"{name}.fallback.windows.ep")
        eager.net.flatten_parameters()
        for batch, steps in SIZES:
            x = torch.randn(batch, steps, eager.net.input_size, dtype=next(eager.parameters()).dtype)
            wanted, on_gpu = exact(x.double()), x.cuda()
            programs = {"engine": engine, "fallback": fallback, "module": eager}
            calls = {key: functools.partial(program, on_gpu) for key, program in programs.items()}
            errors = {f"{key}_error": error(call(), wanted) for key, call in calls.items()}
            for call in calls.values():  # the second time a shape is seen nothing is compiled
                call()
            times: dict[str, list[float]] = {key: [] for key in calls}
            for _ in range(ROUNDS):
                for key, call in calls.items():
                    times[key].append(milliseconds(call))
            medians = {f"{key}_ms": round(statistics.median(values), 4) for key, values in times.items()}
            ratio = round(medians["engine_ms"] / medians["fallback_ms"], 3)
            records.append({"net": name, "batch": batch, "steps": steps, **medians, "ratio": ratio, **errors})
            print(json.dumps(records[-1]), flush=True)
    machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    out.write_text(json.dumps({**machine, "records": records}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("folder", type=Path)
    runs = commands.add_parser("run")
    runs.add_argument("folder", type=Path)
    runs.add_argument("out", type=Path)
    given = parser.parse_args()
    build(given.folder) if given.command == "build" else run(given.folder, given.out)
