"""``resize_`` in words that can be lowered: the first of the values, in other sizes.

Decompositions follow it into the storage of a tensor, and tensors of a trace have none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import statically_known_true

from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.backends.rewrites.insertion import Insertion, value_of
from lightning_trt_windows.errors import CompileError

__all__ = ["with_resizes_as_views"]

aten = torch.ops.aten


def with_resizes_as_views(program: ExportedProgram) -> None:
    """Replace each ``resize_`` in ``program``, in place, before it is decomposed.

    Args:
        program: The captured program.

    Raises:
        CompileError: A tensor may become larger than it is, of memory without values, or is not contiguous.
    """
    module = program.graph_module
    for node in list(module.graph.nodes):
        if node.target is not aten.resize_.default:
            continue
        source, sizes = node.args
        held, values = value_of(source), [value_of(size) for size in sizes]
        count, insert = math.prod(values), Insertion(module, node)
        is_whole = statically_known_true(count == held.numel())
        is_part = isinstance(count, int) and statically_known_true(count <= held.numel())
        if not held.is_contiguous() or not (is_whole or is_part):
            raise CompileError(
                f"{operator_name(node)}{model_line(node)} gives a tensor of {_in_words(held.shape)} the shape "
                f"{_in_words(values)}, which may take more values than it has, or another order. Write it as "
                "x.flatten()[:n].reshape(...), after torch.nn.functional.pad where it grows"
            )
        whole = source
        if not is_whole:
            whole = insert(aten.slice.Tensor, insert(aten.reshape.default, source, [-1]), 0, 0, count)
        node.replace_all_uses_with(insert(aten.reshape.default, whole, list(sizes)))
        module.graph.erase_node(node)
    module.recompile()


def _in_words(shape: Any) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
