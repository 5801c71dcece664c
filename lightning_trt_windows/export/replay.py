"""Which operator around the engines is at fault where a program that was written does not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from lightning_trt_windows.artifact.outline import ENGINE
from lightning_trt_windows.backends.nodes import operator_name
from lightning_trt_windows.backends.samples import arguments_of

__all__ = ["failing_operator"]


def failing_operator(
    program: ExportedProgram, inputs: Sequence[Tensor], engines: Mapping[str, Sequence[Any]], lines: Mapping[str, str]
) -> str:
    """Name the operator that fails while ``program`` runs on the CPU.

    Args:
        program: Engines and the fallback between them.
        inputs: Of the program.
        engines: What each engine gives, by its name.
        lines: The line of the model that a node comes from, by the node's name.

    Returns:
        Operator and line; empty where none fails.
    """
    run = _Run(program.graph_module, engines)
    try:
        with torch.no_grad():
            run.run(*arguments_of(program, inputs), enable_io_processing=False)
    # whatever operators raise
    except Exception:
        node = run.current
        return "" if node is None else operator_name(node) + lines.get(node.name, "")
    return ""


class _Run(Interpreter):
    """Runs a compiled program with what engines are known to give."""

    def __init__(self, module: GraphModule, engines: Mapping[str, Sequence[Any]]) -> None:
        super().__init__(module)
        self._engines = engines
        self.current: Node | None = None
        """The operator that runs."""

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        if n.op != "call_function":
            return super().run_node(n)
        self.current = n
        if ENGINE in f"torch.ops.{n.target}":
            return list(self._engines[str(n.args[2]).removesuffix("_engine")])
        return super().run_node(n)
