"""What PyTorch runs in a saved program, in stages: before all engines, between them, and behind them.

Works on the program as JSON, which may come from anywhere: nothing here recurs, and nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_trt_windows.artifact.outline import ENGINE

__all__ = ["Stage", "objects_in", "results_of", "stages_of", "values_in"]


@dataclass(frozen=True)
class Stage:
    """Operators that need no engine which needs one of them."""

    nodes: tuple[Mapping[str, Any], ...]
    """Calls, in the program's order."""
    gives: tuple[str, ...]
    """Tensors that something outside needs."""


def stages_of(nodes: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> list[Stage]:
    """Divide the operators that ``wanted`` needs.

    An operator belongs to the stage of the longest chain of engines before it. What has a number for its result, as the
    size of a tensor, is computed anew in each stage that needs it; tensors are not.

    Args:
        nodes: The calls of a saved program, engines among them, each after what it needs.
        wanted: Tensors that operators give and that are needed in the end, each once.

    Returns:
        The stages, each after those whose tensors it takes, without any that gives nothing.
    """
    makers = {name: number for number, node in enumerate(nodes) for name in results_of(node)}
    takes = [_taken_by(node, makers) for node in nodes]
    levels: list[int] = []
    for node, taken in zip(nodes, takes):
        deepest = max((levels[number] for number in taken), default=0)
        levels.append(deepest + (node["target"] == ENGINE))
    gives: dict[int, dict[str, None]] = {}
    for name in wanted:
        gives.setdefault(levels[makers[name]], {})[name] = None
    parts: dict[int, tuple[int, ...]] = {}
    for level in range(max(gives, default=-1), -1, -1):
        parts[level], earlier = _part(nodes, levels, takes, makers, level, gives.get(level, {}))
        for name in earlier:
            gives.setdefault(levels[makers[name]], {})[name] = None
    return [
        Stage(tuple(nodes[number] for number in parts[level]), tuple(gives[level]))
        for level in sorted(parts)
        if gives.get(level)
    ]


def _part(
    nodes: Sequence[Mapping[str, Any]],
    levels: Sequence[int],
    takes: Sequence[set[int]],
    makers: Mapping[str, int],
    level: int,
    gives: Mapping[str, None],
) -> tuple[tuple[int, ...], dict[str, None]]:
    """Numbers of the calls of a stage, and the tensors of operators before it that they take."""
    part: set[int] = set()
    pending = [makers[name] for name in gives]
    while pending:
        number = pending.pop()
        if number in part or nodes[number]["target"] == ENGINE:
            continue
        if levels[number] == level or not _gives_tensors(nodes[number]):
            part.add(number)
            pending.extend(takes[number])
    ordered = tuple(sorted(part))
    earlier = dict.fromkeys(
        name
        for number in ordered
        for name in values_in([argument["arg"] for argument in nodes[number]["inputs"]])
        if name in makers and makers[name] not in part and nodes[makers[name]]["target"] != ENGINE
    )
    return ordered, earlier


def _taken_by(node: Mapping[str, Any], makers: Mapping[str, int]) -> set[int]:
    names = values_in([argument["arg"] for argument in node["inputs"]])
    return {makers[name] for name in names if name in makers}


def _gives_tensors(node: Mapping[str, Any]) -> bool:
    return any(kind in ("as_tensor", "as_tensors") for output in node["outputs"] for kind in output)


def results_of(node: Mapping[str, Any]) -> Iterator[str]:
    """The names of what a call gives."""
    for output in node["outputs"]:
        ((_, content),) = output.items()
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict):
                yield from (str(part[key]) for key in ("name", "as_name") if key in part)


def values_in(tree: Any) -> Iterator[str]:
    """All values that stand somewhere in ``tree``."""
    for part in objects_in(tree):
        yield from (str(part[key]) for key in ("name", "as_name") if isinstance(part.get(key), str))


def objects_in(tree: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in ``tree``, at any depth; without recursion, for a file may nest as it likes."""
    pending = [tree]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            pending.extend(part.values())
            yield part
