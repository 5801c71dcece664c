"""Exports with the backend ``tensorrt`` through Torch-TensorRT as NVIDIA publishes it; the builder only records.

Run by ``test_classic.py``: ``export_here.py FOLDER``. All of Torch-TensorRT is the real one (settings, decompositions,
lowering, the choice of operators, the schema of the engine's node, the names of devices and platforms), and so are
TensorRT's bindings. In the place of what needs TensorRT or a GPU stand: the answer which GPU there is, the network that
the converters fill, and the builder, whose engine is a text.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from recorded import Recorder
from torch import nn

from lightning_trt_windows.backends import tensorrt
from lightning_trt_windows.backends.windows_builder import BuildGpu

GPU = BuildGpu("NVIDIA GeForce RTX 4090", (8, 9))
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "version_compatible": True,
        "hardware_compatible": True,
        "optimization_level": 0,
        "disable_tf32": True,
        "workspace_size": 1 << 20,
        "enable_weight_streaming": True,
    },
    "two_engines": {"torch_executed_ops": ["torch.ops.aten.relu.default"]},
}


def model() -> nn.Module:
    """Small; the same every time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


def recording(log: list[str]) -> Any:
    """Patches that let upstream's interpreter record instead of build."""
    from lightning_trt_windows._compat.torch_tensorrt import upstream

    blocks = upstream()
    trt = blocks.trt._target_module
    real = trt.Builder

    def builder(*_: Any) -> Recorder:
        timings = Recorder(trt, "ITimingCache", log, serialize=b"timings")
        results = {
            "create_builder_config": Recorder(trt, "IBuilderConfig", log, get_timing_cache=timings),
            "create_network": types.SimpleNamespace(num_inputs=0),
            "build_serialized_network": b"an engine",
        }
        return Recorder(trt, real, log, **results)

    def network(self: Any) -> None:
        placeholders = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        returned = self.module.graph.output_node().args[0]
        self._input_names = [node.name for node in placeholders]
        self._output_names = [f"output{i}" for i in range(len(returned) if isinstance(returned, tuple) else 1)]
        self.ctx.net = Recorder(trt, "INetworkDefinition", log)
        log.append(f"network of {[str(node.target) for node in self.module.graph.nodes if node.op == 'call_function']}")

    stack = mock.patch.multiple(blocks.TRTInterpreter, _construct_trt_network_def=network)
    return stack, mock.patch.object(trt, "Builder", builder)


def engine_records(path: Path) -> list[list[str]]:
    """The fields of each engine's node, but for its bytes and upstream's pickle."""
    program = torch.export.load(path)
    nodes = [node for node in program.graph.nodes if "no_op_placeholder" in str(node.target)]
    return [[str(value)[:60] for value in node.args[1:] if len(str(value)) < 60] for node in nodes]


def main(folder: Path) -> dict[str, Any]:
    """Export every case, and its twin."""
    from lightning_trt_windows import DimRange, InputSpec, export_module
    from lightning_trt_windows.backends import get_backend
    from lightning_trt_windows.backends.windows_builder import check_resource
    from lightning_trt_windows.errors import EnvironmentMismatchError
    from lightning_trt_windows.settings import ExportSettings

    found: dict[str, Any] = {}
    log: list[str] = []
    with recording(log)[0], recording(log)[1]:
        try:
            check_resource()
        except EnvironmentMismatchError as error:
            found["without the resource"] = str(error)
        (folder / "libraries" / "libnvinfer_builder_resource_win.so.11.1.0").touch()
        for name, options in CASES.items():
            log.clear()
            artifact = export_module(
                model(),
                {"input": InputSpec((DimRange(1, 2, 8), 4))},
                folder / "out" / f"{name}.windows.ep",
                backend="tensorrt",
                compile_options=options,
            )
            manifest = artifact.manifest
            found[name] = {
                "calls": list(log),
                "backend": manifest.backend.to_dict(),
                "versions": dict(manifest.versions),
                "records": engine_records(artifact.path),
                "fallback": manifest.fallback_ops,
            }
        log.clear()
        program = torch.export.export(model(), (torch.randn(2, 4),), strict=False)
        settings = ExportSettings(backend="tensorrt")
        twin = get_backend("tensorrt").compile(program, settings, twin=True)
        nodes = [node for node in twin.program.graph.nodes if "no_op_placeholder" in str(node.target)]
        found["twin"] = {
            "calls": list(log),
            "options": dict(twin.options),
            "record": [str(a) for a in nodes[0].args[1:]],
        }
    return found


if __name__ == "__main__":
    (Path(sys.argv[1]) / "out").mkdir(exist_ok=True)
    with mock.patch.object(tensorrt, "build_gpu", lambda: GPU):
        result = main(Path(sys.argv[1]))
    Path(sys.argv[1], "out", "result.json").write_text(json.dumps(result), encoding="utf-8")
