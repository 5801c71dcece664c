"""What the bindings of engines are called: as the program calls its inputs and outputs.

A value has one name wherever it enters or leaves an engine, and no two values share one. So applications find their
inputs and outputs by name, and an ONNX model needs no node between an engine and the graph's border: ONNX Runtime
(seen: 1.30) removes an ``Identity`` there and gives the engine's node another name, which the engine does not know.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from lightning_trt_windows.backends.partition import engine_calls

__all__ = ["BindingNames", "ProgramNames", "binding_names"]

_LONGEST = 4096
"""Bytes of a name, with the zero at its end, that TensorRT takes."""
_DELIMITER = "%"
"""Upstream's record of an engine joins the names of its bindings by it."""

_Value: TypeAlias = "Node | tuple[Node, int]"
"""A node of the partitioned graph, or the output of an engine, by its call and number."""


@dataclass(frozen=True)
class ProgramNames:
    """What a program calls its tensors."""

    inputs: tuple[str, ...]
    """Names of all inputs that are tensors, in order."""
    outputs: tuple[str, ...]
    """Names of all outputs, in order."""


@dataclass(frozen=True)
class BindingNames:
    """What the bindings of one engine are called."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def binding_names(parted: GraphModule, names: ProgramNames) -> dict[str, BindingNames]:
    """Name the bindings of all engines.

    An engine's output that is several outputs of the program has the name of the first. What passes between engines is
    called by the engine that gives it (``_run_on_acc_0.output1``), what comes from PyTorch as upstream calls it. A name
    that an input has already, or that bindings cannot have, is left out.

    Args:
        parted: The partitioned graph.
        names: What the program calls its inputs and outputs.

    Returns:
        Names by partition, all different unless they are of one value.
    """
    calls = dict(engine_calls(parted))
    chosen: dict[_Value, str] = {}
    taken: set[str] = set()
    tensors = [n for n in parted.graph.nodes if n.op == "placeholder" and isinstance(n.meta.get("val"), torch.Tensor)]
    for node, name in zip(tensors, names.inputs, strict=True):
        if _usable(name) and name not in taken:
            chosen[node] = name
            taken.add(name)
    for output, name in zip(_returned(parted), names.outputs, strict=True):
        value = _value(output, calls)
        if isinstance(value, tuple) and value not in chosen and _usable(name) and name not in taken:
            chosen[value] = name
            taken.add(name)
    taken.update(names.outputs)  # those that no engine gives stay free for what gives them
    found = {}
    for call, graph in calls.items():
        inputs: list[str] = []
        for argument, placeholder in zip(call.args, _placeholders(graph), strict=True):
            value = _value(argument, calls)
            if value not in chosen:
                chosen[value] = _free(str(placeholder.target), taken)
            # TensorRT has one name for each input, also where two are given one value
            inputs.append(chosen[value] if chosen[value] not in inputs else _free(str(placeholder.target), taken))
        outputs = []
        for number in range(len(_returned(graph))):
            if (call, number) not in chosen:
                chosen[call, number] = _free(f"{call.target}.output{number}", taken)
            outputs.append(chosen[call, number])
        found[str(call.target)] = BindingNames(tuple(inputs), tuple(outputs))
    return found


def _usable(name: str) -> bool:
    return name.isprintable() and _DELIMITER not in name and 0 < len(name.encode()) < _LONGEST


def _free(name: str, taken: set[str]) -> str:
    """``name``, or with a number where it is taken; it is taken from now on."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    taken.add(free)
    return free


def _value(node: Any, calls: dict[Node, GraphModule]) -> _Value:
    if isinstance(node, Node) and node.target is operator.getitem and node.args[0] in calls:
        return node.args[0], node.args[1]  # type: ignore[return-value]  # its item is a number
    return (node, 0) if node in calls else node


def _placeholders(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _returned(graph: GraphModule) -> Sequence[Any]:
    values = graph.graph.output_node().args[0]
    return values if isinstance(values, (tuple, list)) else [values]
