"""Refuse what upstream gets wrong silently, or let it fall back to PyTorch: a wrong artifact is worse than none.

Each ``refuse_...`` function looks for one thing, before or after lowering, and raises a ``CompileError`` that names the
place in the user's code and what to do about it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from lightning_trt_windows._compat.torch_tensorrt import Upstream
from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.errors import CompileError

__all__ = [
    "kept_in_torch",
    "refuse_changed_outputs",
    "refuse_dtypes",
    "refuse_mutations",
]


def refuse_mutations(program: ExportedProgram) -> None:
    """Refuse a forward that writes to buffers or inputs.

    Raises:
        CompileError: ``forward`` writes to a buffer or to an input.
    """
    signature = program.graph_signature
    buffers = sorted(signature.buffers_to_mutate.values())
    if buffers:
        raise CompileError(
            f"forward writes to {_listed(buffers, 'buffer')}. An engine has no state: the update would be frozen and "
            "dropped in silence. Return the new value as an output and pass it in as an input, or do not update it in "
            "eval mode (if not self.training: ...)"
        )
    inputs = sorted(signature.user_inputs_to_mutate.values())
    if inputs:
        raise CompileError(
            f"forward writes to {_listed(inputs, 'input')} in place, which an engine cannot do. Work on a copy "
            "(x = x.clone()) in forward"
        )


def refuse_dtypes(blocks: Upstream, program: ExportedProgram, *, takes_double: bool) -> None:
    """Refuse complex numbers where upstream loses shapes of them, and float64 inputs unless ``takes_double``.

    Raises:
        CompileError: There is a complex number or a float64 input that cannot be compiled.
    """
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            continue
        if value.is_complex() and not blocks.takes_complex_numbers:
            raise CompileError(
                f"forward uses complex numbers ({operator_name(node)}{model_line(node)}), which Torch-TensorRT "
                f'{blocks.version} lowers wrongly. Install 2.14 or newer: pip install "torch-tensorrt-rtx>=2.14"'
            )
        if node.op == "placeholder" and value.dtype == torch.float64 and not takes_double:
            raise CompileError(
                f"{node.name} is float64, and TensorRT has no float64. Convert the module and its inputs to float32 "
                "(module.float()), or compute in float32 inside (precision='32')"
            )


def refuse_changed_outputs(source: ExportedProgram, lowered: GraphModule) -> None:
    """Compare what the program returns before and after lowering.

    Raises:
        CompileError: An output has another shape, or is complex.
    """
    first = len(source.graph_signature.output_specs) - len(source.graph_signature.user_outputs)
    pairs = zip(source.graph.output_node().args[0][first:], _returned(lowered), strict=True)
    for index, (before, after) in enumerate(pairs):
        value = before.meta.get("val") if isinstance(before, Node) else None
        if isinstance(value, torch.Tensor) and value.is_complex():
            raise CompileError(
                f"output {index} is complex{model_line(before)}, and TensorRT has no complex numbers: return "
                "torch.view_as_real of it, and use torch.view_as_complex on the result"
            )
        wanted, found = (_shape(v.meta.get("val")) if isinstance(v, Node) else None for v in (before, after))
        if wanted is None or found is None:
            continue
        sizes = [(a, b) for a, b in zip(wanted, found) if isinstance(a, int) and isinstance(b, int)]
        if len(wanted) != len(found) or any(a != b for a, b in sizes):
            raise CompileError(
                f"lowering changed output {index} from {[str(s) for s in wanted]} to {[str(s) for s in found]}"
                f"{model_line(after)}, so the artifact would be wrong. It is a fault of PyTorch "
                f"{torch.__version__} or of Torch-TensorRT: try a newer pair"
            )


def _returned(graph: GraphModule) -> tuple[Any, ...]:
    values = graph.graph.output_node().args[0]
    return tuple(values) if isinstance(values, (tuple, list)) else (values,)


def _shape(value: object) -> tuple[Any, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _listed(names: list[str], noun: str) -> str:
    return f"the {noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


_ACCUMULATE = 3
"""Position of the flag among the arguments of ``index_put``."""


def kept_in_torch(graph: GraphModule) -> frozenset[str]:
    """Names of the nodes in ``graph`` that no engine may hold.

    ``index_put(accumulate=True)`` is what ``index_add`` of graph networks becomes. Torch-TensorRT 2.11 converts it
    as if each index came once (wrong by 100 % on a GPU). From 2.12 on it uses a plugin of its own runtime library,
    where that is loaded, and the machine that loads the engine does not have it.
    """
    return frozenset(node.name for node in graph.graph.nodes if _adds(node))


def _adds(node: Node) -> bool:
    if node.target is not torch.ops.aten.index_put.default:
        return False
    given = node.args[_ACCUMULATE] if len(node.args) > _ACCUMULATE else node.kwargs.get("accumulate", False)
    return bool(given)
