"""The program of an ``.ep`` without its engines: graph, weights and structure. Nothing in it is unpickled."""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.outline import GRAPH, engine_tokens, read_document
from lightning_trt_windows.errors import ArtifactError, LightningTrtError, is_out_of_memory
from lightning_trt_windows.runtime.operators import tree_issues
from lightning_trt_windows.runtime.program_graph import DTYPES, ProgramGraph, read_graph
from lightning_trt_windows.runtime.structure import with_known_classes

__all__ = ["Program", "damage_as_artifact_error", "read_program"]

_WEIGHTS = "data/weights/"
_CONSTANTS = "data/constants/"
_CONFIGS = {_WEIGHTS: "model_weights_config.json", _CONSTANTS: "model_constants_config.json"}
_SAMPLES = "data/sample_inputs/model.pt"
"""A pickle, where it is not empty. Nothing needs it, so nothing opens it."""
_OTHER = re.compile(
    r"data/weights/weight_[0-9]+|data/constants/tensor_[0-9]+|archive_format|archive_version|byteorder|version"
    r"|\.data/version|\.data/serialization_id"
)
_DAMAGE = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, StopIteration, AssertionError,
    SyntaxError, EOFError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What damaged JSON and unknown kinds of values lead to, here, in torch.fx and in zipfile. RecursionError is a
RuntimeError; the last ones come of a member whose own header is not what the archive's directory says."""
_LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Program:
    """What an artifact computes, without its engines."""

    graph: ProgramGraph
    weights: tuple[torch.Tensor, ...]
    """Weights that the graph uses, on the device."""
    in_spec: pytree.TreeSpec
    """Structure of the pair ``(args, kwargs)``."""
    out_spec: pytree.TreeSpec
    described: Mapping[str, Any]
    """The graph as JSON, as it stands in the file."""


def read_program(artifact: Artifact, file: EpFile, device: torch.device) -> Program:
    """Read the program of an artifact for ``device``.

    Nothing of the file is evaluated, imported or unpickled. Its hash must have been checked all the same: what it
    computes is what its maker wants.

    Args:
        artifact: The artifact.
        file: Its ``.ep``.
        device: Where its weights go, and what takes the place of every device that it names.

    Returns:
        The program without its engines.

    Raises:
        ArtifactError: The archive holds something that a program of engines and tensors does not need, or is damaged.
    """
    members = {name.partition("/")[2]: name for name in file.members}
    known = {GRAPH, _SAMPLES, *(folder + file for folder, file in _CONFIGS.items())}
    unknown = [name for name in members if name not in known and not _OTHER.fullmatch(name)]
    if unknown:
        raise ArtifactError(artifact.path, [f"has a member {name!r}, which no artifact needs" for name in unknown])
    if missing := sorted(known - {_SAMPLES} - set(members)):
        raise ArtifactError(artifact.path, [f"has no member {name!r}" for name in missing])
    with damage_as_artifact_error(artifact):
        return _read(artifact, file, members, device)


@contextlib.contextmanager
def damage_as_artifact_error(artifact: Artifact) -> Iterator[None]:
    """Turn what a damaged program leads to in the block into an ArtifactError; errors of ours pass.

    Torch's RuntimeError where there is too little memory becomes a MemoryError: the program is not at fault.
    """
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, LightningTrtError):
            raise
        reason = str(error)
        if is_out_of_memory(error):
            raise MemoryError(reason[:_LONGEST_MESSAGE]) from error
        reason = reason if len(reason) <= _LONGEST_MESSAGE else f"{reason[:_LONGEST_MESSAGE]}..."
        raise ArtifactError(
            artifact.path, [f"its program is not one of engines and tensors: {type(error).__name__}: {reason}"]
        ) from error


def _read(artifact: Artifact, file: EpFile, members: Mapping[str, str], device: torch.device) -> Program:
    program = read_document(artifact, file)["graph_module"]
    graph = read_graph(program, engine_tokens(artifact.manifest), device)
    signature = program["module_call_graph"][0]["signature"]
    fields = program.get("treespec_namedtuple_fields") or {}
    trees = []
    for key in ("in_spec", "out_spec"):
        if issues := list(tree_issues(signature[key])):
            raise ArtifactError(artifact.path, issues)
        trees.append(pytree.treespec_loads(with_known_classes(signature[key], fields, outputs=key == "out_spec")))
    stored: dict[str, torch.Tensor] = {}
    for folder, name in _CONFIGS.items():
        config = json.loads(file.archive.read(members[folder + name]))["config"]
        stored.update(_tensors(file, members, folder, config, device))
    return Program(graph, tuple(stored[name] for name in graph.weights), trees[0], trees[1], program["graph"])


def _tensors(
    file: EpFile,
    members: Mapping[str, str],
    folder: str,
    config: Mapping[str, Any],
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """Weights by name. Those that share memory in the file share it here."""
    memory: dict[str, torch.Tensor] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, record in config.items():
        path, meta = record["path_name"], record["tensor_meta"]
        if record["use_pickle"] or meta is None or not _OTHER.fullmatch(folder + path):
            raise ValueError(f"its weight {name} is a pickle or another object, not a plain tensor")
        dtype = DTYPES[meta["dtype"]]
        sizes, strides = ([int(size["as_int"]) for size in meta[key]] for key in ("sizes", "strides"))
        if not math.prod(sizes):
            tensors[name] = torch.empty(sizes, dtype=dtype, device=device)
            continue
        if path not in memory:
            content = bytearray(file.archive.read(members[folder + path]))
            memory[path] = torch.frombuffer(content, dtype=torch.uint8).to(device)
        # as_strided refuses what reaches beyond the memory
        tensors[name] = memory[path].view(dtype).as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))
    return tensors
