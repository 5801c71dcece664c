"""An artifact as an ONNX model: each engine is an ``EPContext`` node, which the TensorRT-RTX execution provider runs.

The node's attributes are those that ONNX Runtime documents for models compiled ahead of time
(https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html): ``embed_mode`` 0 names a file beside the
model, 1 holds the engine itself. Values have the names that ``forward`` gives them; where an engine's binding has
another name, an ``Identity`` stands between.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.artifact import Artifact, check_artifact, read_artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.manifest import InputRecord, Manifest, OutputRecord
from lightning_trt_windows.artifact.outline import EngineCall, Origin, Outline, read_constant, read_outline
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.onnx.providers import PROVIDER, PROVIDER_DISTRIBUTION, provider_versions

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = ["OnnxModel", "write_onnx"]

_OPSET = 17
_IR_VERSION = 9
"""Of ONNX 1.14; ONNX Runtime from 1.15 on reads it."""
_LARGEST_EMBEDDED = (1 << 31) - (1 << 20)
"""Bytes of engines in one model. Protocol buffers end at 2 GB."""

_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11,
    "bfloat16": 16,
}  # fmt: skip
"""Numbers of ``onnx.TensorProto.DataType``."""


@dataclass(frozen=True)
class OnnxModel:
    """A model that was written."""

    path: Path
    """The ``.onnx``."""
    engines: tuple[Path, ...]
    """Files that it names, beside it; none where the engines are embedded."""

    def __str__(self) -> str:
        return ", ".join(path.name for path in (self.path, *self.engines))


def write_onnx(
    artifact: Artifact | str | os.PathLike[str],
    directory: str | os.PathLike[str] | None = None,
    *,
    embed: bool = False,
) -> OnnxModel:
    """Write ``NAME.windows.onnx``, and beside it the engines that it names.

    Args:
        artifact: The artifact, or the path of its ``.ep``.
        directory: Where the files go; by default beside the artifact.
        embed: Put the engine into the model, instead of a file beside it. The model must stay below 2 GB.

    Returns:
        The files. A model of the same name that was there before is replaced.

    Raises:
        ArtifactError: The artifact is damaged.
        ConfigurationError: Part of the program runs in PyTorch, or in an engine that ONNX Runtime does not take.
        EnvironmentMismatchError: The package ``onnx`` is not installed.
        OutputError: The files cannot be written.
    """
    if not isinstance(artifact, Artifact):
        artifact = read_artifact(Path(artifact))
    check_artifact(artifact)
    outline = read_outline(artifact)
    _check(artifact, outline, embed)
    folder = Path(directory) if directory is not None else artifact.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    stem = artifact.path.name.removesuffix(".ep")
    names = _engine_names(stem, artifact.manifest)
    model = _Writer(artifact, outline, names, embed).model(stem)
    path = folder / f"{stem}.onnx"
    # the model names its engines, so it must not be there before they are
    path.unlink(missing_ok=True)
    written = []
    if not embed:
        for engine, plan in _plans(artifact):
            target = folder / names[engine]
            with atomic_file(target) as out:
                out.write(plan)
            written.append(target)
    with atomic_file(path) as out:
        out.write(model.SerializeToString())
    return OnnxModel(path, tuple(written))


def _check(artifact: Artifact, outline: Outline, embed: bool) -> None:
    manifest = artifact.manifest
    if manifest.backend.name != "tensorrt_rtx":
        raise ConfigurationError(
            f"{artifact.path.name} has engines of the backend {manifest.backend.name!r}. ONNX Runtime takes compiled "
            'engines of TensorRT-RTX: export with backend="tensorrt_rtx"'
        )
    if not outline.engines_only:
        operators = sorted({name.removeprefix("torch.ops.") for name in outline.operators})
        raise ConfigurationError(
            f"{artifact.path.name} cannot become an ONNX model: {', '.join(operators)} run in PyTorch between its "
            "engines, and ONNX Runtime has no PyTorch. Where the module can do without these operators, the program "
            "becomes engines only; `inspect` names the lines of the model that they come from"
        )
    if embed and (size := sum(engine.size for engine in manifest.engines)) > _LARGEST_EMBEDDED:
        raise ConfigurationError(
            f"the engines of {artifact.path.name} have {size / 1e9:.1f} GB, and an ONNX model ends at 2 GB: "
            "leave them beside the model (embed=False)"
        )


def _engine_names(stem: str, manifest: Manifest) -> list[str]:
    if len(manifest.engines) == 1:
        return [f"{stem}.engine"]
    return [f"{stem}.engine_{number}.engine" for number in range(len(manifest.engines))]


def _plans(artifact: Artifact) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each engine; one is in memory at a time."""
    with EpFile(artifact.path) as file:
        for number, engine in enumerate(artifact.manifest.engines):
            yield number, file.engine(engine)


@contextlib.contextmanager
def _onnx_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise EnvironmentMismatchError(
            "writing an ONNX model needs the package onnx: pip install 'lightning-trt-windows[onnx]'"
        ) from error


class _Writer:
    """Builds the graph; values of the program are called as the manifest calls them."""

    def __init__(self, artifact: Artifact, outline: Outline, names: list[str], embed: bool) -> None:
        self._artifact = artifact
        self._manifest = artifact.manifest
        self._outline = outline
        self._names = names
        self._embed = embed
        self._nodes: list[NodeProto] = []
        self._between: list[ValueInfoProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._values: dict[Origin, str] = {}

    def model(self, name: str) -> ModelProto:
        with _onnx_needed():
            from onnx import helper
        plans = dict(_plans(self._artifact)) if self._embed else {}
        for number, given in enumerate(self._manifest.inputs):
            self._values[Origin("input", number)] = given.name
        direct = self._direct_names()
        for call in self._outline.calls:
            self._call(call, direct, plans.get(call.engine))
        for number, (record, origin) in enumerate(zip(self._manifest.outputs, self._outline.outputs)):
            if direct.get(number) is None:
                self._nodes.append(helper.make_node("Identity", [self._value(origin)], [record.name]))
        graph = helper.make_graph(
            self._nodes,
            name,
            [_input_info(record) for record in self._manifest.inputs],
            [_output_info(record) for record in self._manifest.outputs],
            initializer=list(self._initializers.values()),
            value_info=self._between,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        model.producer_name = "lightning-trt-windows"
        model.producer_version = self._manifest.versions.get("lightning-trt-windows", "")
        helper.set_model_props(model, self._properties())
        return model

    def _direct_names(self) -> dict[int, tuple[int, int]]:
        """Outputs of the program whose name an engine's binding already has, so that no Identity is needed."""
        taken: dict[int, tuple[int, int]] = {}
        for number, (record, origin) in enumerate(zip(self._manifest.outputs, self._outline.outputs)):
            if origin.kind == "engine":
                binding = self._manifest.engines[origin.index].outputs[origin.output]
                key = origin.index, origin.output
                if binding == record.name and key not in taken.values():
                    taken[number] = key
        return taken

    def _call(self, call: EngineCall, direct: dict[int, tuple[int, int]], plan: memoryview | None) -> None:
        from onnx import helper

        record = self._manifest.engines[call.engine]
        clashes = {item.name for item in self._manifest.inputs} | {item.name for item in self._manifest.outputs}
        inputs = []
        for origin, binding in zip(call.inputs, record.inputs):
            value = self._value(origin)
            if value != binding:
                if binding in clashes or binding in self._values.values():
                    self._refuse_clash(record.name, binding)
                self._nodes.append(helper.make_node("Identity", [value], [binding]))
            inputs.append(binding)
        for number, binding in enumerate(record.outputs):
            is_direct = (call.engine, number) in direct.values()
            if not is_direct and (binding in clashes or binding in self._values.values()):
                self._refuse_clash(record.name, binding)
            self._values[Origin("engine", call.engine, number)] = binding
            if not is_direct:  # the node's own schema leaves the type of what it gives open
                self._between.append(_info(binding, call.output_types[number], None))
        node = helper.make_node(
            "EPContext",
            inputs,
            list(record.outputs),
            name=f"engine_{call.engine}",
            domain="com.microsoft",
            main_context=1,
            embed_mode=int(self._embed),
            ep_cache_context=bytes(plan) if plan is not None else self._names[call.engine],
            ep_sdk_version=self._manifest.versions.get("tensorrt-rtx", ""),
            hardware_architecture="",
            onnx_model_filename=f"{self._artifact.path.name.removesuffix('.ep')}.onnx",
            partition_name=f"engine_{call.engine}",
            source=PROVIDER,
        )
        self._nodes.append(node)

    def _refuse_clash(self, engine: str, binding: str) -> None:
        raise ConfigurationError(
            f"{self._artifact.path.name} cannot become an ONNX model: the engine {engine} calls a binding {binding!r}, "
            "and the program calls another value so. Exported anew with this version, bindings have the program's names"
        )

    def _value(self, origin: Origin) -> str:
        if origin.kind == "constant" and origin not in self._values:
            name = f"constant.{origin.name}"
            self._initializers[name] = self._constant(origin.name, name)
            self._values[origin] = name
        return self._values[origin]

    def _constant(self, stored: str, name: str) -> TensorProto:
        from onnx import helper

        constant = read_constant(self._artifact, stored)
        if constant.dtype not in _TYPES:
            raise ArtifactError(self._artifact.path, [f"its constant {stored!r} has the type {constant.dtype}"])
        return helper.make_tensor(name, _TYPES[constant.dtype], constant.shape, constant.content, raw=True)

    def _properties(self) -> dict[str, str]:
        """What an application asks for at run time: ranges by input, versions, and where the model is from."""
        properties = {}
        for record in self._manifest.inputs:
            for bound in ("min", "opt", "max"):
                properties[f"{record.name}.{bound}"] = ",".join(str(size) for size in getattr(record, bound))
        version = self._manifest.versions.get("tensorrt-rtx", "")
        properties["tensorrt_rtx"] = version
        properties["execution_provider"] = PROVIDER
        properties["execution_provider_distribution"] = PROVIDER_DISTRIBUTION
        properties["execution_provider_versions"] = ",".join(provider_versions(version))
        properties["compute_capabilities"] = ",".join(self._manifest.backend.compute_capabilities)
        properties["artifact"] = self._artifact.path.name
        properties["artifact_sha256"] = self._manifest.ep.sha256
        return properties


def _input_info(record: InputRecord) -> ValueInfoProto:
    shape = [symbol or size for symbol, size in zip(record.symbols, record.min)]
    return _info(record.name, record.dtype, shape)


def _output_info(record: OutputRecord) -> ValueInfoProto:
    return _info(record.name, record.dtype, list(record.shape))


def _info(name: str, dtype: str, shape: list[Any] | None) -> ValueInfoProto:
    from onnx import helper

    if dtype not in _TYPES:
        raise ConfigurationError(f"{name} has the type {dtype}, which ONNX Runtime does not exchange with engines")
    return helper.make_tensor_value_info(name, _TYPES[dtype], shape)
