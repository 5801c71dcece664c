"""Load a real artifact on the CPU: each engine's own partition stands in for the engine.

Only the engines' execution is replaced. The export, both files, the hash, the reader, the graph, the fallback parts and
their weights are the real ones; so wiring, order, nesting and ranges are those of a GPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trt_windows import export_module
from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.manifest import EngineRecord
from lightning_trt_windows.runtime.engine_runner import EngineRunner
from lightning_trt_windows.runtime.loaded import LoadedModule
from lightning_trt_windows.runtime.loading import load_program
from support.recorded import keep, key_of_caller, take
from support.simulation import partitions_kept

CPU = torch.device("cpu")


@dataclass
class StandIn:
    """An artifact, and the graphs its engines were built from."""

    artifact: Artifact
    partitions: Mapping[str, Callable[..., Any]]
    """By the name of the engine; or in their stead functions that evaluate the networks."""

    def load(self) -> LoadedModule:
        """Load it as ``load`` does, except for the environment and the engines."""
        return load_program(read_artifact(self.artifact.path), CPU, self.open_engine)

    def open_engine(self, record: EngineRecord, plan: memoryview) -> EngineRunner:
        """The partition that the engine was built from, if ``plan`` is that engine."""
        assert hashlib.sha256(plan).hexdigest() == record.sha256, "the bytes that reach TensorRT are the engine's"
        partition = self.partitions[record.name]

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            assert len(inputs) == len(record.inputs)
            result = partition(*inputs)
            outputs = list(result) if isinstance(result, (tuple, list)) else [result]
            assert len(outputs) == len(record.outputs)
            return outputs

        return run


def export_for_test(module: nn.Module, inputs: dict[str, Any], path: Path, **settings: Any) -> StandIn:
    """Export for real, and keep a copy of each partition; on Windows, take what Linux exported."""
    key = key_of_caller(path)
    if (taken := take(key, module, path)) is not None:
        return StandIn(*taken)
    with partitions_kept() as partitions:
        artifact = export_module(module, inputs, path, **settings)
    keep(key, artifact, module, partitions)
    return StandIn(artifact, partitions)
