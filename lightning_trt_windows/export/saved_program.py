"""Programs that travel to where the user's code is not: written without examples, read with stand-ins for classes.

A saved program names the classes of its arguments and outputs, and ``torch.export.load`` wants them registered. The
process that builds has no code of the user's: there, a class of the same registered name takes their place, which
keeps what the file says of them as it is. What that process saves again names the same classes in the same words.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from lightning_trt_windows._compat.modelopt import import_quantizers_of
from lightning_trt_windows._compat.torch import only_symbols_have_ranges
from lightning_trt_windows.progress.upstream_output import quiet

__all__ = ["load_program", "save_program"]

_GRAPH = "models/model.json"
_NAMED_TUPLE = "collections.namedtuple"


def save_program(program: ExportedProgram, file: Path | io.BytesIO) -> None:
    """Write ``program`` to ``file``, without its example inputs: they are pickled, and of no use for a build."""
    examples, program.example_inputs = program.example_inputs, None
    try:
        torch.export.save(program, file)
    finally:
        if examples is not None:
            program.example_inputs = examples


def load_program(file: Path | io.BytesIO) -> ExportedProgram:
    """Read what ``save_program`` wrote, whichever classes are known here."""
    _register_stand_ins(file)
    with quiet():  # PyTorch 2.11 warns of the archive's own bytes, which nobody writes to
        program = torch.export.load(file)
    only_symbols_have_ranges(program)
    return program


def _register_stand_ins(file: Path | io.BytesIO) -> None:
    with zipfile.ZipFile(file) as archive:
        member = next((name for name in archive.namelist() if name.endswith(f"/{_GRAPH}")), None)
        text = b"{}" if member is None else archive.read(member)
    import_quantizers_of(text)
    graph = json.loads(text).get("graph_module", {})
    if isinstance(file, io.BytesIO):
        file.seek(0)
    fields = graph.get("treespec_namedtuple_fields") or {}
    for entry in graph.get("module_call_graph", ()):
        signature = entry.get("signature") or {}
        for key in ("in_spec", "out_spec"):
            for node in _nodes(signature.get(key)):
                _stand_in_for(node, fields)


def _nodes(tree: str | None) -> Iterator[Mapping[str, Any]]:
    pending = [json.loads(tree)[1]] if tree else []
    while pending:
        node = pending.pop()
        pending.extend(node["children_spec"])
        if node["type"] is not None:
            yield node


def _stand_in_for(node: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    name = node["context"] if node["type"] == _NAMED_TUPLE else node["type"]
    if name in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE:
        return
    if node["type"] == _NAMED_TUPLE:
        names = fields.get(name, {}).get("field_names") or [f"_{i}" for i in range(len(node["children_spec"]))]
        # the name is the file's: it need not be one that a class statement could have
        named: Any = namedtuple("StandIn", names, rename=True)  # type: ignore[misc]
        named._fields = tuple(names)
        pytree._register_namedtuple(named, serialized_type_name=name)
        return
    cls: Any = type("StandIn", (_StandIn,), {"__slots__": ()})
    pytree.register_pytree_node(
        cls,
        lambda value: (list(value.children), value.context),
        lambda children, context: cls(children, context),
        serialized_type_name=name,
        # the words of the file, kept as they are
        to_dumpable_context=lambda context: context,
        from_dumpable_context=lambda context: context,
        flatten_with_keys_fn=lambda value: (
            [(pytree.SequenceKey(i), child) for i, child in enumerate(value.children)],
            value.context,
        ),
    )


class _StandIn:
    """A value of a class that this process does not have."""

    __slots__ = ("children", "context")

    def __init__(self, children: Iterable[Any], context: Any) -> None:
        self.children = tuple(children)
        self.context = context
