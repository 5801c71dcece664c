"""Run a compiled program on the CPU: each engine's partition stands in for the engine itself.

Engines cannot run on a machine without a GPU. What can go wrong around them (order and number of outputs, nesting,
sizes, what stays in PyTorch, ranges) can be checked by running the very graphs that the engines were built from.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_unflatten

from lightning_trt_windows.backends import CompiledProgram, get_backend
from lightning_trt_windows.backends import compiler as driver
from lightning_trt_windows.settings import ExportSettings


@dataclass
class Simulated:
    """A compiled program and the graphs its engines were built from."""

    compiled: CompiledProgram
    partitions: dict[str, torch.fx.GraphModule]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled program with partitions in place of engines."""
        return run_with(self.compiled.program, self.partitions, args, kwargs)


def run_with(
    program: ExportedProgram, partitions: dict[str, torch.fx.GraphModule], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run ``program`` on the CPU with ``partitions``, by engine name, in place of its engines."""

    class Interpreter(torch.fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            if "no_op_placeholder" in str(target):
                result = partitions[args[2].removesuffix("_engine")](*args[0])
                return list(result) if isinstance(result, (tuple, list)) else [result]
            if target is operator.getitem and isinstance(args[0], list) and args[1] >= len(args[0]):
                raise AssertionError(f"an engine returns {len(args[0])} tensors, item {args[1]} is read")
            return super().call_function(target, args, kwargs)

    flat = program._get_flat_args_with_check(args, kwargs)[0] if hasattr(program, "_get_flat_args_with_check") else None
    assert flat is not None
    state = [
        program.state_dict[spec.target] if spec.target in program.state_dict else program.constants[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.kind.name != "USER_INPUT"
    ]
    with torch.no_grad():
        outputs = Interpreter(program.graph_module).run(*state, *flat, enable_io_processing=False)
    return tree_unflatten(list(outputs), program.call_spec.out_spec)


@contextmanager
def partitions_kept() -> Iterator[dict[str, torch.fx.GraphModule]]:
    """Copies of the graphs that engines are built from, by name, for running them in place of the engines."""
    partitions: dict[str, torch.fx.GraphModule] = {}
    real = driver.build_engine

    def recording(blocks: Any, name: str, graph: torch.fx.GraphModule, *rest: Any) -> Any:
        partitions[name] = torch.fx.GraphModule(graph, copy.deepcopy(graph.graph))
        return real(blocks, name, graph, *rest)

    with mock.patch.object(driver, "build_engine", recording):
        yield partitions


def compile_for_test(program: ExportedProgram, **settings: Any) -> Simulated:
    """Compile for real, and keep a copy of each partition."""
    with partitions_kept() as partitions:
        chosen = ExportSettings(**settings)
        compiled = get_backend(chosen.backend).compile(program, chosen)
    return Simulated(compiled, partitions)
