"""Which operator of a captured program is decomposed into something else than it computes.

Asked only where the lowered graph as a whole differs from the captured one: each operator is run twice on what it gets
in the captured program, as it is and in the words that it is decomposed into.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lightning_trt_windows._compat.precision import exact_float32
from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.backends.samples import GraphRun, arguments_of
from lightning_trt_windows.modules.numbers import relative_norm

__all__ = ["InOtherWords", "decomposed_otherwise"]

_MOST = {torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Relative norm by which one operator may differ; 1e-3 in every other type."""
_SECONDS = 60.0
"""How long the search may take."""


def decomposed_otherwise(program: ExportedProgram, table: Mapping[Any, Any], inputs: Sequence[Tensor]) -> str:
    """The first operator that differs, with its line, in words; empty where none does, or where the search is too long.

    Args:
        program: As captured.
        table: Operator to its decomposition.
        inputs: Of the program.
    """
    run = _BothWays(program, table)
    try:
        with torch.no_grad(), exact_float32():
            run.run(*arguments_of(program, inputs), enable_io_processing=False)
    except _FoundError as found:
        return f"It is {operator_name(found.node)}{model_line(found.node)}, with a relative error of {found.error:.1e}"
    # it names what is at fault in a message; nothing depends on it
    except Exception:
        return ""
    return ""


class _FoundError(Exception):
    def __init__(self, node: Node, error: float) -> None:
        super().__init__()
        self.node = node
        self.error = error


class InOtherWords(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Runs operators in the words that they are decomposed into."""

    def __init__(self, table: Mapping[Any, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._table = table

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._table:
            with self:  # what it is decomposed into may be decomposed as well
                result = self._table[func](*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


class _BothWays(GraphRun):
    def __init__(self, program: ExportedProgram, table: Mapping[Any, Any]) -> None:
        super().__init__(program.graph_module)
        self._mode = InOtherWords(table)
        self._until = time.monotonic() + _SECONDS

    def run_node(self, n: Node) -> Any:
        """Run one node as it is, and then in other words."""
        schema = getattr(n.target, "_schema", None)
        if n.op != "call_function" or schema is None or schema.is_mutable or time.monotonic() > self._until:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given, named = tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, (args, kwargs))
        result = super().run_node(n)
        with self._mode:
            other = super().call_function(n.target, given, named)
        for wanted, found in zip(tree_leaves(result), tree_leaves(other)):
            error = _difference(found, wanted)
            if isinstance(wanted, Tensor) and error > _MOST.get(wanted.dtype, 1e-3):
                raise _FoundError(n, error)
        return result


def _difference(found: Any, wanted: Any) -> float:
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor):
        return 0.0
    if found.shape == wanted.shape and not (wanted.is_floating_point() or wanted.is_complex()):
        return float((found.to(wanted.dtype) != wanted).double().mean()) if wanted.numel() else 0.0
    return relative_norm(found, wanted)
