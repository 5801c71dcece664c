"""How the engines of an ``.ep`` are connected: which input, engine or constant each value comes from.

Standard library only, so that any machine can tell what a binding of an engine is to the program. Nothing of the file
is evaluated or unpickled; the payloads of the engines are passed over.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.errors import ArtifactError

__all__ = [
    "ENGINE",
    "GRAPH",
    "Constant",
    "EngineCall",
    "Origin",
    "Outline",
    "engine_tokens",
    "read_constant",
    "read_document",
    "read_outline",
]

ENGINE = "torch.ops.tensorrt.no_op_placeholder_for_execute_engine.default"
"""Target of the nodes that stand for engines, as Torch-TensorRT writes and reads them."""

OriginKind: TypeAlias = Literal["input", "engine", "constant", "operator", "literal"]

_TOKEN = "@engine:{}@"
GRAPH = "models/model.json"
"""Member of the archive with the graph, below the archive's own folder."""
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_SCHEMA = 8
"""Major version of the schema of ``torch._export.serde`` that is read here: torch 2.7 to 2.14 write it."""
_LARGEST_GRAPH = 1 << 28
"""Bytes of JSON without the payloads. ViT-L has 0.3 MB."""
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError, zipfile.BadZipFile)
"""What damaged JSON and unknown kinds of values lead to."""

_DTYPES = {
    1: ("uint8", 1), 2: ("int8", 1), 4: ("int32", 4), 5: ("int64", 8), 6: ("float16", 2), 7: ("float32", 4),
    8: ("float64", 8), 12: ("bool", 1), 13: ("bfloat16", 2),
}  # fmt: skip
"""The schema's numbers of dtypes, with the name and the bytes of an element."""


@dataclass(frozen=True)
class Origin:
    """Where one value of the program comes from."""

    kind: OriginKind
    index: int = 0
    """Number of the program's input, or of the engine in the manifest."""
    output: int = 0
    """Number of the engine's output."""
    name: str = ""
    """Name of a constant in the archive, or of the operator that PyTorch runs."""
    value: str = ""
    """What the saved program calls what an operator gives; empty for other kinds."""


@dataclass(frozen=True)
class EngineCall:
    """One engine as the program calls it."""

    engine: int
    """Number in the manifest."""
    inputs: tuple[Origin, ...]
    """Origins in the order of the engine's input bindings."""
    output_types: tuple[str, ...]
    """Dtype of each of the engine's outputs."""
    output_shapes: tuple[tuple[int | None, ...], ...] = ()
    """Shape of each; ``None`` for an axis that varies."""


@dataclass(frozen=True)
class Outline:
    """The program without what its operators compute."""

    calls: tuple[EngineCall, ...]
    """Calls in the order of the program."""
    outputs: tuple[Origin, ...]
    """Origins in the order of the manifest's outputs."""
    operators: tuple[str, ...]
    """Operators that PyTorch runs, each as often as it is called."""
    values: Mapping[str, Origin] = field(default_factory=dict)
    """What the saved program calls its inputs and what engines give, and which of them it is."""
    steps: tuple[int | str, ...] = ()
    """The whole program in its order: the number of an engine, or the operator that PyTorch runs."""

    @property
    def engines_only(self) -> bool:
        """Whether engines compute everything: every value is an input, a constant or an engine's output."""
        values = [*self.outputs, *(value for call in self.calls for value in call.inputs)]
        return not self.operators and all(value.kind in ("input", "engine", "constant") for value in values)

    @property
    def one_to_one(self) -> bool:
        """Whether the program is one engine whose bindings are the program's inputs and outputs, each of them once."""
        if not self.engines_only or len(self.calls) != 1:
            return False
        given = list(self.calls[0].inputs)
        distinct = len({*given, *self.outputs}) == len(given) + len(self.outputs)
        return distinct and all(v.kind == "input" for v in given) and all(v.kind == "engine" for v in self.outputs)


def read_outline(artifact: Artifact) -> Outline:
    """Read how the engines of ``artifact`` are connected.

    Returns:
        The calls and the outputs, in terms of the manifest's inputs and engines.

    Raises:
        ArtifactError: The archive is damaged, or its program is not the one that the manifest describes.
    """
    try:
        with EpFile(artifact.path) as file:
            document = read_document(artifact, file)
        return _Reader(artifact, document["graph_module"]).outline()
    except ArtifactError:
        raise
    except _DAMAGE as error:
        reason = f"its program is not one of engines and tensors: {type(error).__name__}: {str(error)[:300]}"
        raise ArtifactError(artifact.path, [reason]) from error


def engine_tokens(manifest: Manifest) -> dict[str, int]:
    """What stands for the payload of each engine in ``read_document``, with the engine's number in the manifest."""
    return {_TOKEN.format(number): number for number in range(len(manifest.engines))}


def read_document(artifact: Artifact, file: EpFile) -> dict[str, Any]:
    """Read the JSON of the saved program, with a token in place of each engine.

    Args:
        artifact: The artifact.
        file: Its ``.ep``.

    Returns:
        The document as ``json.loads`` gives it.

    Raises:
        ArtifactError: An engine of the manifest is elsewhere, or the JSON is too large for a graph.
        ValueError: The document is not valid JSON, or has a version of the schema that is not read here. A damaged one
            can raise other exceptions.
    """
    (member,) = (name for name in file.members if name.partition("/")[2] == GRAPH)
    records = artifact.manifest.engines
    if elsewhere := [engine.name for engine in records if engine.location.member != member]:
        raise ArtifactError(artifact.path, [f"the engine {name} is not in the graph" for name in elsewhere])
    if file.members[member].file_size - sum(engine.location.length for engine in records) > _LARGEST_GRAPH:
        raise ArtifactError(artifact.path, ["its graph is larger than 256 MiB without the engines"])
    document: dict[str, Any] = json.loads(
        b"".join(file.without_payloads(member, zip(engine_tokens(artifact.manifest), records)))
    )
    if (major := document["schema_version"]["major"]) != _SCHEMA:
        raise ValueError(f"its schema has the version {major}, this lightning-trt-windows reads {_SCHEMA}")
    return document


class _Reader:
    def __init__(self, artifact: Artifact, program: Mapping[str, Any]) -> None:
        self._manifest = artifact.manifest
        self._tokens = engine_tokens(artifact.manifest)
        self._program = program
        self._origins: dict[str, Origin] = {}

    def outline(self) -> Outline:
        graph = self._program["graph"]
        self._inputs(graph["inputs"], self._program["signature"]["input_specs"])
        calls: list[EngineCall] = []
        steps: list[int | str] = []
        for node in graph["nodes"]:
            if node["target"] == ENGINE:
                results = _names(node["outputs"])
                types = tuple(_DTYPES[graph["tensor_values"][name]["dtype"]][0] for name in results)
                sizes = (graph["tensor_values"][name]["sizes"] for name in results)
                shapes = tuple(tuple(size.get("as_int") for size in shape) for shape in sizes)
                call = self._call(node["inputs"], types, shapes)
                calls.append(call)
                steps.append(call.engine)
                for number, name in enumerate(results):
                    self._origins[name] = Origin("engine", call.engine, number)
            else:
                steps.append(node["target"])
                for name in _names(node["outputs"]):
                    self._origins[name] = Origin("operator", name=node["target"], value=name)
        outputs = tuple(self._origin(output) for output in graph["outputs"])
        if len(outputs) != len(self._manifest.outputs):
            raise ValueError(f"it has {len(outputs)} outputs, the manifest {len(self._manifest.outputs)}")
        values = {name: origin for name, origin in self._origins.items() if origin.kind in ("input", "engine")}
        operators = tuple(step for step in steps if isinstance(step, str))
        return Outline(tuple(calls), outputs, operators, values, tuple(steps))

    def _inputs(self, given: Sequence[Mapping[str, Any]], specs: Sequence[Mapping[str, Any]]) -> None:
        tensors = 0
        for item, spec in zip(given, specs, strict=True):
            ((kind, content),) = spec.items()
            name = item["as_tensor"]["name"] if "as_tensor" in item else ""
            if kind == "user_input" and name:
                self._origins[name] = Origin("input", tensors)
                tensors += 1
            elif kind in ("parameter", "buffer", "tensor_constant"):
                self._origins[name] = Origin("constant", name=content[f"{kind}_name"])
        if tensors != len(self._manifest.inputs):
            raise ValueError(f"it has {tensors} inputs, the manifest {len(self._manifest.inputs)}")

    def _call(
        self,
        arguments: Sequence[Mapping[str, Any]],
        output_types: tuple[str, ...],
        output_shapes: tuple[tuple[int | None, ...], ...],
    ) -> EngineCall:
        texts = (argument["arg"].get("as_string") for argument in arguments[1:])
        (engine,) = (self._tokens[text] for text in texts if text in self._tokens)
        ((_, given),) = arguments[0]["arg"].items()
        inputs = tuple(self._origins[item["name"]] for item in given)
        bindings = self._manifest.engines[engine].inputs
        if len(inputs) != len(bindings):
            raise ValueError(f"it gives {len(inputs)} tensors to an engine with {len(bindings)} input bindings")
        return EngineCall(engine, inputs, output_types, output_shapes)

    def _origin(self, argument: Mapping[str, Any]) -> Origin:
        ((kind, content),) = argument.items()
        if kind == "as_tensor":
            return self._origins[content["name"]]
        name = content.get("as_name") if isinstance(content, dict) else None
        return self._origins.get(str(name), Origin("operator", name=str(name))) if name else Origin("literal")


def _names(outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of all results of a node, in order."""
    names: list[str] = []
    for output in outputs:
        ((kind, content),) = output.items()
        if kind == "as_tensor":
            names.append(content["name"])
        elif kind == "as_tensors":
            names.extend(part["name"] for part in content)
        elif isinstance(content, dict) and "as_name" in content:
            names.append(content["as_name"])
    return names


@dataclass(frozen=True)
class Constant:
    """A tensor that stands in the archive."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes
    """Elements in row-major order, little-endian."""


def read_constant(artifact: Artifact, name: str) -> Constant:
    """Read the constant ``name`` of an outline of ``artifact``.

    Returns:
        Its shape, its type and its content.

    Raises:
        ArtifactError: The archive has no such tensor, or it is not a plain one.
    """
    try:
        with EpFile(artifact.path) as file:
            members = {name.partition("/")[2]: name for name in file.members}
            for config in _CONFIGS:
                entries = json.loads(file.archive.read(members[config]))["config"]
                if name in entries:
                    return _constant(file, members, config.rpartition("/")[0], entries[name])
        raise ValueError("it is not in the archive")
    except ArtifactError:
        raise
    except _DAMAGE as error:
        reason = f"its constant {name!r} cannot be read: {type(error).__name__}: {str(error)[:300]}"
        raise ArtifactError(artifact.path, [reason]) from error


def _constant(file: EpFile, members: Mapping[str, str], folder: str, entry: Mapping[str, Any]) -> Constant:
    meta = entry["tensor_meta"]
    if entry["use_pickle"] or meta is None or meta["dtype"] not in _DTYPES:
        raise ValueError("it is a pickle or of a type that is not read here")
    dtype, width = _DTYPES[meta["dtype"]]
    shape, strides = (tuple(int(size["as_int"]) for size in meta[key]) for key in ("sizes", "strides"))
    if not math.prod(shape):
        return Constant(dtype, shape, b"")
    content = file.archive.read(members[f"{folder}/{entry['path_name']}"])
    offset = int(meta["storage_offset"]["as_int"])
    return Constant(dtype, shape, b"".join(_rows(content, width, shape, strides, offset)))


def _rows(content: bytes, width: int, shape: Sequence[int], strides: Sequence[int], offset: int) -> Sequence[bytes]:
    """The elements in row-major order, contiguous runs of the last axis at once."""
    if not shape:
        return [_cut(content, offset * width, width)]
    if len(shape) == 1:
        if strides[0] == 1 or shape[0] == 1:
            return [_cut(content, offset * width, width * shape[0])]
        return [_cut(content, (offset + i * strides[0]) * width, width) for i in range(shape[0])]
    rows: list[bytes] = []
    for i in range(shape[0]):
        rows.extend(_rows(content, width, shape[1:], strides[1:], offset + i * strides[0]))
    return rows


def _cut(content: bytes, start: int, length: int) -> bytes:
    if start < 0 or start + length > len(content):
        raise ValueError("it reaches beyond its memory")
    return content[start : start + length]
