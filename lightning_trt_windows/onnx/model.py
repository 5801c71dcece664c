"""An artifact as an ONNX model: each engine is an ``EPContext`` node, which the TensorRT-RTX execution provider runs.

The node's attributes are those that ONNX Runtime documents for models compiled ahead of time
(https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html): ``embed_mode`` 0 names a file beside the
model, 1 holds the engine itself. Values have the names of the engines' bindings, which are those that ``forward`` gives
them (``backends.binding_names``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.artifact import Artifact, check_artifact, read_artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.manifest import InputRecord, OutputRecord
from lightning_trt_windows.artifact.outline import EngineCall, Origin, Outline, read_constant, read_outline
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.onnx.operators import OPSET, read_operators
from lightning_trt_windows.onnx.ordering import in_order
from lightning_trt_windows.onnx.providers import PROVIDER, PROVIDER_DISTRIBUTION, provider_versions
from lightning_trt_windows.onnx.tensor_types import TYPES

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = ["OnnxModel", "write_onnx"]

_OPSET = 17
_IR_VERSION = 9
"""Of ONNX 1.14; ONNX Runtime from 1.15 on reads it."""
_PREFIX = "operators/"
"""What the names of values begin with that neither the program nor an engine has; no name of a program has a slash."""
_FAR = 1 << 40
"""Beyond the end of every tensor; not the largest number of its type, by which the optimizer knows a whole axis."""
_LARGEST_EMBEDDED = (1 << 31) - (1 << 20)
"""Bytes of engines in one model. Protocol buffers end at 2 GB."""


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
    lines: Mapping[str, str] | None = None,
) -> OnnxModel:
    """Write ``NAME.windows.onnx``, and beside it the engines that it names.

    Args:
        artifact: The artifact, or the path of its ``.ep``.
        directory: Where the files go; by default beside the artifact.
        embed: Put the engines into the model, instead of files beside it. The model must stay below 2 GB.
        lines: The line of the model that an operator comes from, by its name in the program, for messages.

    Returns:
        The files. A model of the same name that was there before is replaced.

    Raises:
        ArtifactError: The artifact is damaged.
        ConfigurationError: An operator that runs in PyTorch has no form in ONNX, or the engines are not TensorRT-RTX's.
        EnvironmentMismatchError: The package ``onnx`` is not installed; or operators run in PyTorch, and PyTorch or
            ``onnxscript`` is not installed.
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
    target, *engines = artifact.paths.onnx_files(len(artifact.manifest.engines))
    names = [engine.name for engine in engines]
    model = _Writer(artifact, outline, names, embed, lines or {}).model(stem)
    path = folder / target.name
    # the model names its engines, so it must not be there before they are
    path.unlink(missing_ok=True)
    written = []
    if not embed:
        for engine, plan in _plans(artifact):
            beside = folder / names[engine]
            with atomic_file(beside) as out:
                out.write(plan)
            written.append(beside)
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
    if unknown := [value for value in outline.outputs if value.kind == "literal"]:
        raise ConfigurationError(
            f"{artifact.path.name} cannot become an ONNX model: {len(unknown)} of its outputs are no tensors, and "
            "those of a model are"
        )
    outside = [*((i.name, i.dtype) for i in manifest.inputs), *((o.name, o.dtype) for o in manifest.outputs)]
    if double := [name for name, dtype in outside if dtype == "float64"]:
        # read in its source (IsSupportedInputOutputDataType): it refuses the whole model
        raise ConfigurationError(
            f"{artifact.path.name} cannot become an ONNX model: {', '.join(double)} has the type float64, and the "
            "execution provider takes no model with such an input or output. float32 outside, as with .float() in "
            "forward, is taken; float64 may be inside"
        )
    if embed and (size := sum(engine.size for engine in manifest.engines)) > _LARGEST_EMBEDDED:
        raise ConfigurationError(
            f"the engines of {artifact.path.name} have {size / 1e9:.1f} GB, and an ONNX model ends at 2 GB: "
            "leave them beside the model (embed=False)"
        )


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
            'writing an ONNX model needs the package onnx: pip install "lightning-trt-windows[onnx]"'
        ) from error


class _Writer:
    """Builds the graph; values have the names of the bindings that they enter and leave engines by.

    The provider finds bindings by what the engine's node takes and gives, so ONNX Runtime's optimizer must not rename
    that. Seen with 1.30 and 1.32: it removes nodes that change nothing (``Identity``, a ``Cast`` to the same type) and
    gives the engine's node what is beside them, makes one node of two that compute the same, and computes ahead what
    depends on constants only; and the provider (0.4.0) leaves out constants that an engine takes. So what an engine
    takes is an input of the model, the output of another engine under the same name, or comes from a ``Slice`` of
    everything, which the optimizer has to leave alone (``_copy``).
    """

    def __init__(
        self, artifact: Artifact, outline: Outline, names: list[str], embed: bool, lines: Mapping[str, str]
    ) -> None:
        self._artifact = artifact
        self._manifest = artifact.manifest
        self._outline = outline
        self._names = names
        self._embed = embed
        self._lines = lines
        self._nodes: list[NodeProto] = []
        self._between: list[ValueInfoProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._values: dict[Origin, str] = {}
        self._bindings: dict[str, Origin] = {}
        self._taken: set[str] = set()
        self._copies = 0

    def model(self, name: str) -> ModelProto:
        with _onnx_needed():
            from onnx import helper
        plans = dict(_plans(self._artifact)) if self._embed else {}
        self._name_bindings()
        inputs = [self._input_name(number, record) for number, record in enumerate(self._manifest.inputs)]
        opset = self._add_operators()
        outputs = self._output_names()
        for call in self._outline.calls:
            self._call(call, set(outputs), plans.get(call.engine))
        self._give(outputs)
        graph = helper.make_graph(
            in_order(self._nodes),
            name,
            [_input_info(called, record) for called, record in zip(inputs, self._manifest.inputs)],
            [_output_info(called, record) for called, record in zip(outputs, self._manifest.outputs)],
            initializer=list(self._initializers.values()),
            value_info=self._between,
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        model.producer_name = "lightning-trt-windows"
        model.producer_version = self._manifest.versions.get("lightning-trt-windows", "")
        helper.set_model_props(model, self._properties(inputs, outputs))
        return model

    def _name_bindings(self) -> None:
        """Call each value as the bindings that it passes, what engines give first.

        Raises:
            ConfigurationError: One name is that of two values.
        """
        for call in self._outline.calls:
            for number, binding in enumerate(self._manifest.engines[call.engine].outputs):
                self._bind(binding, Origin("engine", call.engine, number))
        for call in self._outline.calls:
            for origin, binding in zip(call.inputs, self._manifest.engines[call.engine].inputs):
                self._bind(binding, origin)
        self._taken.update(self._bindings)

    def _bind(self, binding: str, origin: Origin) -> None:
        if self._bindings.setdefault(binding, origin) != origin:
            raise ConfigurationError(
                f"{self._artifact.path.name} cannot become an ONNX model: two values enter or leave engines as "
                f"{binding!r}, and values of a model have one name each. Artifacts that were exported before bindings "
                "had the program's names are like that: export it anew"
            )
        if origin.kind in ("input", "engine"):
            self._values.setdefault(origin, binding)

    def _input_name(self, number: int, record: InputRecord) -> str:
        origin = Origin("input", number)
        if origin not in self._values:
            self._values[origin] = self._free(record.name)
        return self._values[origin]

    def _output_names(self) -> list[str]:
        """Names of the graph's outputs: the binding's where an engine gives the value, once for each value."""
        names: list[str] = []
        for record, origin in zip(self._manifest.outputs, self._outline.outputs):
            direct = self._values[origin] if origin.kind == "engine" else ""
            names.append(direct if direct and direct not in names else self._free(record.name))
        return names

    def _free(self, name: str) -> str:
        """``name``, or with a number behind it where another value is called so; it is taken from now on."""
        numbered = (f"{name}.{number}" for number in itertools.count(1))
        free = next(one for one in itertools.chain([name], numbered) if one not in self._taken)
        self._taken.add(free)
        return free

    def _add_operators(self) -> int:
        """Put what PyTorch runs into the graph, as operators of ONNX; returns the version of ONNX's operators."""
        taken = (value for call in self._outline.calls for value in call.inputs)
        wanted = dict.fromkeys(value for value in (*taken, *self._outline.outputs) if value.kind == "operator")
        if not wanted:
            return _OPSET
        called = {name: self._values[origin] for name, origin in self._outline.values.items()}
        operators = read_operators(
            self._artifact, [origin.value for origin in wanted], called, self._lines, prefix=_PREFIX
        )
        self._values.update(zip(wanted, operators.outputs))
        self._nodes.extend(operators.nodes)
        self._initializers.update((tensor.name, tensor) for tensor in operators.initializers)
        return OPSET

    def _call(self, call: EngineCall, outputs: set[str], plan: memoryview | None) -> None:
        from onnx import helper

        record = self._manifest.engines[call.engine]
        shapes = call.output_shapes or [None] * len(record.outputs)
        for binding, dtype, shape in zip(record.outputs, call.output_types, shapes):
            # the node's own schema leaves open what it gives, and without a rank ONNX Runtime may take Shape for empty
            if binding not in outputs:
                self._between.append(_info(binding, dtype, None if shape is None else list(shape)))
        for origin, binding in zip(call.inputs, record.inputs):
            self._copy(self._value(origin), binding)
        node = helper.make_node(
            "EPContext",
            list(record.inputs),
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

    def _give(self, outputs: Sequence[str]) -> None:
        """Make the graph's outputs of the values that they are."""
        from onnx import helper

        for name, origin in zip(outputs, self._outline.outputs):
            value = self._value(origin)
            if origin.kind == "operator":
                # an operator that changes nothing would be removed, and the engine before it asked for this name
                self._copy(value, name)
            elif value != name:
                self._nodes.append(helper.make_node("Identity", [value], [name]))

    def _copy(self, value: str, name: str) -> None:
        """Have ``value`` under ``name`` as well, by nodes that ONNX Runtime's optimizer neither removes nor merges.

        A ``Slice`` from a beginning that is known at run time only cannot be computed ahead, nor be seen to take all;
        and one with an end of its own is not like any other.
        """
        from onnx import helper

        if value == name or any(name in node.output for node in self._nodes):
            return
        self._copies += 1
        flat, end, part, shape = (f"{_PREFIX}{what}.{self._copies}" for what in ("flat", "end", "part", "shape"))
        self._constant_numbers(f"end.{self._copies}", [_FAR + self._copies])
        self._nodes += [
            helper.make_node("Shape", [value], [shape], name=shape),
            helper.make_node("Reshape", [value, self._constant_numbers("all", [-1])], [flat], name=flat),
            helper.make_node("Slice", [flat, self._beginning(), end], [part], name=part),
            helper.make_node("Reshape", [part, shape], [name], name=f"{_PREFIX}copy.{self._copies}", allowzero=1),
        ]

    def _beginning(self) -> str:
        """A zero that is known at run time only: how much of an input is left where nothing of it is taken."""
        from onnx import helper

        name = f"{_PREFIX}beginning"
        if not self._manifest.inputs:
            return self._constant_numbers("beginning", [0])
        if not any(name in node.output for node in self._nodes):
            flat, nothing, none = (f"{_PREFIX}{what}" for what in ("flat", "nothing", "none"))
            self._initializers[none] = helper.make_tensor(none, TYPES["bool"], [1], [False])
            given = self._values[Origin("input", 0)]
            if self._manifest.inputs[0].dtype == "bfloat16":  # there is no Compress for it
                cast = f"{_PREFIX}cast"
                self._nodes.append(helper.make_node("Cast", [given], [cast], name=cast, to=TYPES["float32"]))
                given = cast
            self._nodes += [
                helper.make_node("Reshape", [given, self._constant_numbers("all", [-1])], [flat], name=flat),
                helper.make_node("Compress", [flat, none], [nothing], name=nothing),
                helper.make_node("Shape", [nothing], [name], name=name),
            ]
        return name

    def _constant_numbers(self, what: str, numbers: Sequence[int]) -> str:
        from onnx import helper

        name = f"{_PREFIX}{what}"
        self._initializers[name] = helper.make_tensor(name, TYPES["int64"], [len(numbers)], numbers)
        return name

    def _value(self, origin: Origin) -> str:
        """What the value is called; a constant is put into the graph when it is asked for first."""
        if origin.kind == "constant":
            name = self._values[origin] if origin in self._values else self._free(f"constant.{origin.name}")
            self._values[origin] = name
            if name not in self._initializers:
                self._initializers[name] = self._constant(origin.name, name)
        return self._values[origin]

    def _constant(self, stored: str, name: str) -> TensorProto:
        from onnx import helper

        constant = read_constant(self._artifact, stored)
        if constant.dtype not in TYPES:
            raise ArtifactError(self._artifact.path, [f"its constant {stored!r} has the type {constant.dtype}"])
        return helper.make_tensor(name, TYPES[constant.dtype], constant.shape, constant.content, raw=True)

    def _properties(self, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
        """What an application asks for at run time: ranges by input, versions, and where the model is from."""
        properties = {}
        for name, record in zip(inputs, self._manifest.inputs):
            for bound in ("min", "opt", "max"):
                properties[f"{name}.{bound}"] = ",".join(str(size) for size in getattr(record, bound))
        program = [*(record.name for record in self._manifest.inputs), *(o.name for o in self._manifest.outputs)]
        for name, in_program in zip((*inputs, *outputs), program):
            if name != in_program:
                properties[f"{name}.in_program"] = in_program
        version = self._manifest.versions.get("tensorrt-rtx", "")
        properties["tensorrt_rtx"] = version
        properties["execution_provider"] = PROVIDER
        properties["execution_provider_distribution"] = PROVIDER_DISTRIBUTION
        properties["execution_provider_versions"] = ",".join(provider_versions(version))
        properties["compute_capabilities"] = ",".join(self._manifest.backend.compute_capabilities)
        properties["artifact"] = self._artifact.path.name
        properties["artifact_sha256"] = self._manifest.ep.sha256
        return properties


def _input_info(name: str, record: InputRecord) -> ValueInfoProto:
    shape = [symbol or size for symbol, size in zip(record.symbols, record.min)]
    return _info(name, record.dtype, shape)


def _output_info(name: str, record: OutputRecord) -> ValueInfoProto:
    return _info(name, record.dtype, list(record.shape))


def _info(name: str, dtype: str, shape: list[Any] | None) -> ValueInfoProto:
    from onnx import helper

    if dtype not in TYPES:
        raise ConfigurationError(f"{name} has the type {dtype}, which ONNX Runtime does not exchange with engines")
    return helper.make_tensor_value_info(name, TYPES[dtype], shape)
