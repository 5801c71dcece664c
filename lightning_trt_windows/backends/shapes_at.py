"""The shapes that a graph has at other sizes than it was traced at, found with tensors that have no values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from lightning_trt_windows.backends.nodes import is_check

__all__ = ["NoShapesError", "node_that_changes"]


class NoShapesError(Exception):
    """A node fails at the sizes that were asked for, or has no shape without values."""

    def __init__(self, node: Node, error: Exception) -> None:
        first = next(iter(str(error).strip().splitlines()), "")
        super().__init__(f"{type(error).__name__}: {first}")
        self.node = node


class _Changes(BaseException):
    """Of a class that nothing on the way catches."""

    def __init__(self, node: Node, said: Tensor, found: Tensor) -> None:
        super().__init__()
        self.node, self.said, self.found = node, said, found


class _Shapes(Interpreter):
    def __init__(self, graph: GraphModule, symbols: Mapping[sympy.Symbol, int]) -> None:
        super().__init__(graph)
        self._symbols = symbols

    def run_node(self, n: Node) -> Any:
        if is_check(n):
            # no shape comes of it, and it may only say that PyTorch set this size aside
            return None
        try:
            result = super().run_node(n)
        except Exception as error:
            raise NoShapesError(n, error) from error
        if n.op == "call_function":
            for said, found in zip(tree_leaves(n.meta.get("val")), tree_leaves(result)):
                if isinstance(said, Tensor) and isinstance(found, Tensor) and not self._may_be(said, found):
                    raise _Changes(n, said, found)
        return result

    def _may_be(self, said: Tensor, found: Tensor) -> bool:
        # the type as well: a sum over one element may be the element, in its own type
        if said.dim() != found.dim() or said.dtype is not found.dtype:
            return False
        return all(b == size for a, b in zip(said.shape, found.shape) if (size := self._size(a)) is not None)

    def _size(self, size: int | torch.SymInt) -> int | None:
        """The size at those that were given for symbols; ``None`` where they do not tell."""
        if isinstance(size, int):
            return size
        if not self._symbols or not size.node.expr.free_symbols <= self._symbols.keys():
            return None
        number = size.node.expr.xreplace({s: sympy.Integer(n) for s, n in self._symbols.items()})
        return int(number) if number.is_Integer else None


def _in_words(tensor: Tensor) -> str:
    sizes = ", ".join(str(size) for size in tensor.shape)
    return f"{str(tensor.dtype).removeprefix('torch.')}[{sizes}]"


def node_that_changes(
    graph: GraphModule,
    inputs: Sequence[tuple[Any, Sequence[int] | None]],
    symbols: Mapping[sympy.Symbol, int] | None = None,
) -> tuple[Node, str] | None:
    """The first node that has another shape or type than the graph says, and both in words.

    Args:
        graph: A graph whose nodes know what they gave in the trace.
        inputs: For each placeholder what it was in the trace, and the shape it is to have, if it is a tensor.
        symbols: Sizes of symbols in that shape, which tell other shapes as well; without them only static sizes count.

    Returns:
        The node; ``None`` where all agree.

    Raises:
        NoShapesError: A node fails, or its shape depends on values.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode, torch.no_grad():
            values = [
                torch.empty(shape, dtype=said.dtype, device=said.device) if shape is not None else said
                for said, shape in inputs
            ]
            _Shapes(graph, symbols or {}).run(*values, enable_io_processing=False)
    except _Changes as found:
        return found.node, f"{_in_words(found.found)} rather than {_in_words(found.said)}"
    return None
