"""Which operator of a captured program is decomposed into one that takes fewer sizes than it does.

Asked only where lowering has taken sizes from an input: the program runs once more on tensors without values, in the
words that its operators are decomposed into, and after each it is looked at what became of the dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from lightning_trt_windows.backends.decomposed import InOtherWords

__all__ = ["operator_that_specializes"]


def operator_that_specializes(
    program: ExportedProgram, table: Mapping[Any, Any], placeholder: str, axis: int
) -> Node | None:
    """The node of ``program`` after which a dimension takes fewer sizes, or ``None`` where none is found.

    Args:
        program: As captured.
        table: Operator to its decomposition.
        placeholder: Name of an input.
        axis: A dynamic dimension of it.
    """
    environment = ShapeEnv()
    mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    values: list[Any] = []
    size: Any = None
    for spec in program.graph_signature.input_specs:
        name = getattr(spec.arg, "name", "")
        said = nodes.get(name)
        if not isinstance(said, Tensor):
            values.append(getattr(spec.arg, "value", said))
            continue
        value = _like(mode, said, name, dynamic=spec.kind is InputKind.USER_INPUT)
        values.append(value)
        if name == placeholder:
            size = value.shape[axis]
    run = _Watching(program, table, size)
    try:
        with mode, torch.no_grad():
            run.run(*values, enable_io_processing=False)
    # it names what is at fault in a message; nothing depends on it
    except Exception:
        pass
    return run.found


def _like(mode: FakeTensorMode, said: Tensor, name: str, *, dynamic: bool) -> Tensor:
    """A tensor without values of the shape that ``said`` had in the trace, its dynamic sizes free again."""
    shape = [n if isinstance(n, int) else int(n.node.hint) for n in said.shape]
    real = torch.empty(shape, dtype=said.dtype, device="meta")
    free = [DimDynamic.STATIC if not dynamic or isinstance(n, int) else DimDynamic.DUCK for n in said.shape]
    context: Any = StatelessSymbolicContext(dynamic_sizes=free)
    return mode.from_tensor(real, source=ConstantSource(f"__{name}"), symbolic_context=context)


class _Watching(Interpreter):
    """Runs until the range of a size has changed."""

    def __init__(self, program: ExportedProgram, table: Mapping[Any, Any], size: Any) -> None:
        super().__init__(program.graph_module)
        self._mode = InOtherWords(table)
        self._size = size
        self._before = self._range()
        self.found: Node | None = None

    def _range(self) -> str:
        if not isinstance(self._size, torch.SymInt):
            return ""
        environment: Any = self._size.node.shape_env
        expression = self._size.node.expr
        ranges = [str(environment.var_to_range.get(symbol)) for symbol in expression.free_symbols]
        return f"{expression} {ranges}"

    def run_node(self, n: Node) -> Any:
        """Run one node in other words."""
        with self._mode:
            result = super().run_node(n)
        if n.op == "call_function" and self.found is None and self._range() != self._before:
            self.found = n
        return result
