"""Whether a program has the shapes that it says at its smallest sizes.

PyTorch takes a dynamic size for 2 or more, whatever range it was given: ``x[:2]`` has two rows, and that is written
into the program. At a size of 1 the program computes right all the same, since a slice ends where the tensor does; an
engine that is built from it does not. So the shapes are looked at, with tensors that have no values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves

__all__ = ["shape_that_changes"]


class _Changes(BaseException):
    """Of a class that nothing on the way catches."""

    def __init__(self, node: Node, said: Tensor, found: Tensor) -> None:
        super().__init__()
        self.node, self.said, self.found = node, said, found


class _Shapes(Interpreter):
    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function":
            for said, found in zip(tree_leaves(n.meta.get("val")), tree_leaves(result)):
                if isinstance(said, Tensor) and isinstance(found, Tensor) and not _may_be(said, found):
                    raise _Changes(n, said, found)
        return result


def _may_be(said: Tensor, found: Tensor) -> bool:
    # the type as well: a sum over one element may be the element, in its own type
    if said.dim() != found.dim() or said.dtype is not found.dtype:
        return False
    return all(not isinstance(a, int) or a == b for a, b in zip(said.shape, found.shape))


def _in_words(tensor: Tensor) -> str:
    sizes = ", ".join(str(size) for size in tensor.shape)
    return f"{str(tensor.dtype).removeprefix('torch.')}[{sizes}]"


def shape_that_changes(
    program: ExportedProgram, inputs: Sequence[Sequence[str | None]], sizes: Mapping[str, int]
) -> tuple[Node, str] | None:
    """The first node that has another shape or type at ``sizes`` than the program says, and both in words.

    Args:
        program: As traced.
        inputs: Names of the dimensions of each tensor input, ``None`` where they are static.
        sizes: By name; every other dimension has the size it was traced at.
    """
    names = iter(inputs)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    values: list[Any] = []
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    try:
        with mode, torch.no_grad():
            for spec in program.graph_signature.input_specs:
                said = nodes.get(getattr(spec.arg, "name", ""))
                if not isinstance(said, Tensor):
                    values.append(getattr(spec.arg, "value", said))
                    continue
                own = next(names) if spec.kind is InputKind.USER_INPUT else [None] * said.dim()
                shape = [
                    sizes[name] if name is not None and name in sizes else n if isinstance(n, int) else n.node.hint
                    for n, name in zip(said.shape, own, strict=True)
                ]
                values.append(torch.empty(shape, dtype=said.dtype, device=said.device))
            _Shapes(program.graph_module).run(*values, enable_io_processing=False)
    except _Changes as found:
        return found.node, f"{_in_words(found.found)} rather than {_in_words(found.said)}"
    # what has no shapes without values
    except Exception:
        return None
    return None
