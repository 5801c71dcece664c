"""Nodes of an ONNX graph, each after those that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import NodeProto

__all__ = ["in_order"]


def in_order(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Sort ``nodes`` as a graph must have them; those that do not depend on each other stay in their order.

    Raises:
        RuntimeError: Some depend on each other in a circle, which no program does.
    """
    makers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    done: dict[int, bool] = {}
    found: list[NodeProto] = []
    for first in range(len(nodes)):
        pending = [first]
        while pending:
            number = pending[-1]
            if done.get(number):
                pending.pop()
                continue
            needed = {makers[name] for name in _needed(nodes[number]) if name in makers}
            missing = sorted((other for other in needed if not done.get(other)), reverse=True)
            if not missing:
                done[number] = True
                found.append(nodes[number])
                pending.pop()
            elif any(other in done for other in missing):
                raise RuntimeError(f"the node {nodes[number].name} depends on itself")
            else:
                done[number] = False
                pending.extend(missing)
    return found


def _needed(node: NodeProto) -> Iterator[str]:
    """What a node takes, the graphs inside it included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from _needed_by(graph)


def _needed_by(graph: Any) -> Iterator[str]:
    inside = {name for node in graph.node for name in node.output}
    inside.update(value.name for value in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from (name for name in _needed(node) if name not in inside)
    yield from (value.name for value in graph.output if value.name not in inside)
