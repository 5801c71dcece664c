"""Whether an engine of one TensorRT-RTX loads in another, and computes there what eager does.

    PYTHONPATH=tests python tests/gpu/other_versions.py build engines      (no GPU; once for each TensorRT-RTX)
    python tests/gpu/other_versions.py run engines                         (a GPU; once for each TensorRT-RTX)

``build`` writes ``engines/VERSION/NAME.engine`` of small models of the zoo with the TensorRT-RTX that is installed, and
what eager gives for inputs at four sizes. ``run`` needs PyTorch and the bindings ``tensorrt_rtx`` only, and prints one
JSON line for each engine of each version: which TensorRT-RTX built it, which loaded it, the largest relative error over
the sizes or what TensorRT-RTX said, and which bindings are in host memory, of which there should be none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MODELS = ("mlp", "vit_tiny", "gpt2", "lstm", "dense_graph", "wavenet", "deep_sets")
"""Of one engine each, whose bindings are the inputs and outputs: attention, loops, convolutions over time, integers."""


def build(folder: Path, only: list[str]) -> None:
    """Export with the installed TensorRT-RTX."""
    from torch.utils._pytree import tree_leaves
    from zoo.exporting import SIZES, call, export
    from zoo.models import ZOO

    from lightning_trt_windows.artifact.ep_file import EpFile
    from lightning_trt_windows.artifact.outline import read_outline

    for name in only or MODELS:
        with tempfile.TemporaryDirectory() as place, torch.no_grad():
            exported = export(ZOO[name], Path(place))
            artifact, outline = exported.artifact, read_outline(exported.artifact)
            if not outline.one_to_one:
                print(f"{name}: not one engine whose bindings are the program's")
                continue
            manifest = artifact.manifest
            (engine,) = manifest.engines
            calls = {}
            for size in SIZES:
                args, kwargs = call(exported, size)
                tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
                results = tree_leaves(getattr(exported.module, exported.entry.method)(*args, **kwargs))
                wanted = [leaf for leaf in results if isinstance(leaf, Tensor)]
                order = [origin.index for origin in outline.calls[0].inputs]
                given = {binding: tensors[index].contiguous() for binding, index in zip(engine.inputs, order)}
                expected = {engine.outputs[o.output]: w.contiguous() for o, w in zip(outline.outputs, wanted)}
                calls[size] = (given, expected)
            target = folder / manifest.versions["tensorrt-rtx"]
            target.mkdir(parents=True, exist_ok=True)
            with EpFile(artifact.path) as file:
                (target / f"{name}.engine").write_bytes(file.engine(engine))
            torch.save(calls, target / f"{name}.pt")
            print(f"{target.name}/{name}: {engine.size} bytes", flush=True)


class Loaded:
    """An engine in plain bindings, without anything of this package."""

    def __init__(self, trt: Any, plan: bytes, said: list[str]) -> None:
        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.Severity.WARNING:
                    said.append(message)

        self._trt = trt
        self._logger = Logger()
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise RuntimeError(f"it does not load: {' | '.join(said)[:300]}")
        config = self.engine.create_runtime_config()
        # kernels that are specialized for shapes are wrong on GPUs that NVIDIA does not support
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.NONE
        self.context = self.engine.create_execution_context(config)

    def __call__(self, given: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of the shapes of ``expected``."""
        inputs = {name: value.cuda() for name, value in given.items()}
        outputs = {name: torch.empty_like(value, device="cuda") for name, value in expected.items()}
        for name, value in inputs.items():
            self.context.set_input_shape(name, tuple(value.shape))
        for name, value in (inputs | outputs).items():
            self.context.set_tensor_address(name, value.data_ptr())
        for name, value in outputs.items():
            if tuple(self.context.get_tensor_shape(name)) != tuple(value.shape):
                raise RuntimeError(f"{name} has the shape {self.context.get_tensor_shape(name)}")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("it does not run")
        stream.synchronize()
        return {name: value.cpu() for name, value in outputs.items()}


def run(folder: Path, only: list[str]) -> None:
    """Load each engine of each version in the installed TensorRT-RTX."""
    import tensorrt_rtx as trt

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, TensorRT-RTX {trt.__version__}")
    for plan in sorted(folder.glob("*/*.engine")):
        if only and plan.stem not in only:
            continue
        record: dict[str, Any] = {"model": plan.stem, "built": plan.parent.name, "loaded": trt.__version__}
        said: list[str] = []
        try:
            loaded = Loaded(trt, plan.read_bytes(), said)
            engine, host = loaded.engine, trt.TensorLocation.HOST
            names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
            record["in_host_memory"] = [name for name in names if engine.get_tensor_location(name) == host]
            calls = torch.load(plan.with_suffix(".pt"))
            errors = {}
            for size, (given, expected) in calls.items():
                found = loaded(given, expected)
                pairs = [(found[name].double(), value.double()) for name, value in expected.items()]
                errors[size] = max(float((f - e).norm() / e.norm().clamp_min(1e-12)) for f, e in pairs)
            record["errors"] = {size: f"{error:.1e}" for size, error in errors.items()}
        # whatever it is, it is what was to be found out
        except Exception as error:
            record["failed"] = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        print(json.dumps({**record, "said": [line[:200] for line in said[:3]]}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("build", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    arguments = parser.parse_args()
    {"build": build, "run": run}[arguments.action](arguments.folder, arguments.only)
