"""Whether a program has the shapes that it says at its smallest sizes.

PyTorch takes a dynamic size for 2 or more, whatever range it was given: ``x[:2]`` has two rows, and that is written
into the program. At a size of 1 the program computes right all the same, since a slice ends where the tensor does; an
engine that is built from it does not. So the shapes are looked at, with tensors that have no values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from lightning_trt_windows.backends.shapes_at import NoShapesError, node_that_changes

__all__ = ["shape_that_changes"]


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
    values: list[tuple[Any, list[int] | None]] = []
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        said = nodes.get(getattr(spec.arg, "name", ""))
        if not isinstance(said, Tensor):
            values.append((getattr(spec.arg, "value", said), None))
            continue
        own = next(names) if spec.kind is InputKind.USER_INPUT else [None] * said.dim()
        shape = [
            sizes[name] if name is not None and name in sizes else n if isinstance(n, int) else n.node.hint
            for n, name in zip(said.shape, own, strict=True)
        ]
        values.append((said, shape))
    try:
        return node_that_changes(program.graph_module, values)
    except NoShapesError:
        return None
