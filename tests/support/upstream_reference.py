"""Upstream's own way to a Windows file, made to work: what the archive writer is compared with, and timed against.

``cross_compile_for_windows`` and ``save_cross_compiled_exported_program`` fail as they come (the comments below say
where). Their faults are patched away here, for the whole process, so this runs in a process of its own::

    python tests/support/upstream_reference.py DIRECTORY

compiles each of ``MODELS`` to ``DIRECTORY/<name>.ep``.
"""

from __future__ import annotations

import logging
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map
from torch.utils._sympy.value_ranges import bound_sympy

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.capture.program import capture

__all__ = ["MODELS", "Model", "cross_compile", "import_fixed", "save"]

BATCH = DimRange(1, 4, 16, name="batch")


class Convolutions(nn.Module):
    """One engine, one input, one output: what every image classifier looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8 * 16 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


class Nested(nn.Module):
    """Structured inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, batch: dict[str, Tensor], scale: Tensor) -> dict[str, Any]:
        hidden = torch.relu(self.one(batch["wide"])) + self.other(batch["narrow"])
        return {"scores": hidden.softmax(-1), "parts": (hidden * scale, hidden.mean(1))}


class Interrupted(nn.Module):
    """Two engines; between them an operator that is kept in PyTorch, with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(torch.relu(self.first(x))))


@dataclass(frozen=True)
class Model:
    """One model that both sides compile."""

    make: Callable[[], nn.Module]
    inputs: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    """Options of ``CompilationSettings``, for both sides."""

    def program(self) -> ExportedProgram:
        """Captured, with the same weights every time."""
        torch.manual_seed(0)
        return capture(self.make().eval(), self.inputs).program


MODELS = {
    "convolutions": Model(Convolutions, {"x": InputSpec((BATCH, 3, 16, 16))}),
    "nested": Model(
        Nested,
        {"batch": {"wide": InputSpec((BATCH, 6)), "narrow": InputSpec((BATCH, 3))}, "scale": InputSpec((4,))},
    ),
    "interrupted": Model(
        Interrupted,
        {"x": InputSpec((BATCH, 6))},
        {"torch_executed_ops": {"torch.ops.aten.native_layer_norm.default", "torch.ops.aten.layer_norm.default"}},
    ),
}


class _HostEngine:
    """A serialized engine that nobody executes."""

    def __init__(self, plan: Any) -> None:
        self._plan = bytes(plan)

    def serialize(self) -> bytes:
        return self._plan

    def get_aliased_input_tensor(self, name: str) -> None:
        return None


class _HostRuntime:
    """Upstream deserializes each engine it has built, for which TensorRT wants a GPU."""

    def __init__(self, *_: Any) -> None:
        pass

    def deserialize_cuda_engine(self, plan: Any) -> _HostEngine:
        return _HostEngine(plan)


def import_fixed() -> Any:
    """Import ``torch_tensorrt`` without a GPU and patch what keeps cross compilation from working."""
    warnings.filterwarnings("ignore")
    if not torch.cuda.is_available():
        properties = types.SimpleNamespace(major=8, minor=6, name="NVIDIA", total_memory=1 << 36)
        torch.cuda.current_device = lambda: 0
        torch.cuda.get_device_capability = lambda *_: (8, 6)
        torch.cuda.get_device_properties = lambda *_: properties
        torch.cuda.mem_get_info = lambda *_: (1 << 36, 1 << 36)
    import torch_tensorrt

    logging.getLogger("torch_tensorrt").setLevel(logging.CRITICAL)
    from torch_tensorrt import _features
    from torch_tensorrt.dynamo import _compiler
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter
    from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

    # the RTX wheel says no, although its library does it
    _features.ENABLED_FEATURES = _features.ENABLED_FEATURES._replace(windows_cross_compile=True)
    trt = types.SimpleNamespace(**{name: getattr(_TRTInterpreter.trt, name) for name in dir(_TRTInterpreter.trt)})
    trt.Runtime = _HostRuntime
    _TRTInterpreter.trt = trt
    # asks an engine that cross compilation never sets up; every model with one output ends here
    TorchTensorRTModule.set_output_tensors_as_unowned = lambda self, enabled: None
    # parts that stay in PyTorch are sent to a GPU
    _compiler.to_torch_device = lambda device: torch.device("cpu")
    return torch_tensorrt


def cross_compile(torch_tensorrt: Any, program: ExportedProgram, **options: Any) -> torch.fx.GraphModule:
    """Call upstream's function; ``program`` must hold its example inputs, which become the sizes to tune for."""
    args, kwargs = _upstream_inputs(torch_tensorrt, program)
    # these two narrow the range of the batch where there are convolutions
    with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        return torch_tensorrt.dynamo.cross_compile_for_windows(
            program, arg_inputs=args, kwarg_inputs=kwargs, **{"min_block_size": 1, **options}
        )


def save(compiled: torch.fx.GraphModule, path: str) -> None:
    """What ``save_cross_compiled_exported_program`` does, with the exporter that needs no inputs."""
    from torch_tensorrt.dynamo._exporter import export

    torch.export.save(export(compiled, cross_compile_module=True, use_legacy_exporter=True), path)


def _upstream_inputs(torch_tensorrt: Any, program: ExportedProgram) -> Any:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    traced = iter([nodes[name].meta["val"] for name in program.graph_signature.user_inputs])

    def convert(example: Any) -> Any:
        value = next(traced)
        if not isinstance(example, torch.Tensor):
            return example
        bounds = [
            bound_sympy(size.node.expr, program.range_constraints) if isinstance(size, torch.SymInt) else None
            for size in value.shape
        ]
        return torch_tensorrt.Input(
            min_shape=[size if b is None else int(b.lower) for size, b in zip(example.shape, bounds, strict=True)],
            opt_shape=list(example.shape),
            max_shape=[size if b is None else int(b.upper) for size, b in zip(example.shape, bounds, strict=True)],
            dtype=example.dtype,
        )

    return tree_map(convert, program.example_inputs)


def main() -> None:
    """Compile every model."""
    torch_tensorrt = import_fixed()
    for name, model in MODELS.items():
        compiled = cross_compile(torch_tensorrt, model.program(), **model.options)
        save(compiled, str(Path(sys.argv[1]) / f"{name}.ep"))


if __name__ == "__main__":
    main()
