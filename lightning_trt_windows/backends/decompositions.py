"""Decomposed programs that serve the next build of the same program with other weights.

Decomposing traces the program with fake tensors, which takes half of a later build's time, and reads no weights: the
same program with tensors of the same types, shapes and strides decomposes to the same. What comes after it (constants
are folded, precisions chosen by the values of weights) is done for each build.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.export import ExportedProgram
from torch.nn import Parameter

from lightning_trt_windows._compat.torch import shape_environment

__all__ = ["decomposed", "forget"]

_MOST = 2
"""Programs that are kept, without weights: a run has one, and another one where its module changes."""


@dataclass
class _Kept:
    program: ExportedProgram
    facts: Any
    """What was known about its sizes when it was kept."""
    notes: list[dict[str, Any]]
    """Containers in each node's metadata as they were then: upstream takes the names of modules out of them."""

    @classmethod
    def of(cls, program: ExportedProgram) -> _Kept:
        """Keep ``program``, which nothing has lowered yet."""
        return cls(program, _facts(program), [_containers(node.meta) for node in program.graph.nodes])

    def renewed(self, state: Mapping[str, Any]) -> ExportedProgram:
        """The program as it was, with these weights."""
        self.program.state_dict.update(state)
        for node, notes in zip(self.program.graph.nodes, self.notes, strict=True):
            node.meta.update(_containers(notes))
        return self.program


_kept: OrderedDict[Any, _Kept] = OrderedDict()


def decomposed(
    same: str | None, program: ExportedProgram, decompose: Callable[[ExportedProgram], ExportedProgram]
) -> ExportedProgram:
    """Decompose ``program``, or take what was decomposed before.

    Args:
        same: Equal for programs that differ in the values of their weights only, and are compiled with the same
            settings; ``None`` keeps nothing.
        program: The program.
        decompose: Decomposes it.

    Returns:
        The decomposed program with the weights of ``program``. Once its ``module()`` has been made, ``forget`` lets the
        weights go.
    """
    key = None if same is None else (same, _kinds(program))
    kept = _kept.pop(key, None)
    # what later steps have found out about sizes in the shared environment must not decide here
    if kept is not None and kept.facts == _facts(kept.program):
        _kept[key] = kept
        return kept.renewed(program.state_dict)
    made = decompose(program)
    if key is not None and made.state_dict.keys() == program.state_dict.keys():
        _kept[key] = _Kept.of(made)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    return made


def forget(program: ExportedProgram) -> None:
    """Take the weights from what is kept: they are the next build's business, and their memory is the current one's."""
    if any(kept.program is program for kept in _kept.values()):
        program.state_dict.clear()


def _containers(notes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.copy(value) for key, value in notes.items() if isinstance(value, (dict, list))}


def _kinds(program: ExportedProgram) -> tuple[Any, ...]:
    return tuple(
        (name, str(tensor.dtype), tuple(tensor.shape), tensor.stride(), isinstance(tensor, Parameter))
        for name, tensor in program.state_dict.items()
    )


def _facts(program: ExportedProgram) -> Any:
    environment = shape_environment(program)
    if environment is None:
        return None
    return dict(environment.var_to_range), dict(environment.replacements), len(environment.guards)
