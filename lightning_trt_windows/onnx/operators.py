"""What PyTorch runs between the engines of an artifact, as operators of ONNX. Needs PyTorch and ``onnxscript``.

The saved program is read without its engines: what an engine gives becomes an input, what it takes an output. What is
left are programs of operators, one before, between and behind engines (``stages``), which PyTorch's own exporter
translates; the caller puts the engines back between them. Symbolic sizes and their ranges stand in the file and stay
as they are.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.outline import GRAPH, read_document
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.onnx.stages import Stage, objects_in, results_of, stages_of, values_in

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = ["OPSET", "Operators", "read_operators"]

OPSET = 18
"""What PyTorch's exporter writes by itself; ONNX Runtime from 1.14 on reads it."""
_LARGEST = (1 << 31) - (1 << 24)
"""Bytes of a model. Protocol buffers end at 2 GB."""

_LIFTED = ("parameter", "buffer", "tensor_constant")
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_PLAIN = re.compile(r"data/(weights/weight|constants/tensor)_[0-9]+|archive_format|archive_version|byteorder|\.data/.*")
_SYMBOL = re.compile(r"Symbol\('[A-Za-z]+[0-9]+'(, [a-z]+=(True|False))*\)")
_EXPRESSION = re.compile(r"(?:[A-Z][A-Za-z]*|[0-9]+(\.[0-9]+)?|[a-z]+=|[-+*/%(), ]|True|False)*")
"""What is left of a size where its symbols are taken out: sums, products and functions of sympy and of torch. PyTorch
evaluates it, so that nothing else may stand there."""
_BFLOAT16 = 16
"""``onnx.TensorProto.BFLOAT16``."""
_TAKE_BFLOAT16 = frozenset((
    "Cast", "Concat", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "ScatterElements",
    "ScatterND", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip
"""Operators that ONNX Runtime's CPU provider has for bfloat16."""
_TARGET = re.compile(r"target=torch\.ops\.([\w.]+)")


@dataclass(frozen=True)
class Operators:
    """The operators of a program, for a graph that has its inputs and its engines."""

    nodes: tuple[NodeProto, ...]
    """Their values are called as the caller said, all others begin with a prefix."""
    initializers: tuple[TensorProto, ...]
    """Weights and constants."""
    outputs: tuple[str, ...]
    """What the values that were asked for are called in it."""


def read_operators(
    artifact: Artifact, wanted: Sequence[str], called: Mapping[str, str], lines: Mapping[str, str], *, prefix: str
) -> Operators:
    """Translate what PyTorch runs in the program of ``artifact``.

    What runs before an engine and what runs behind it are translated one after the other. In one piece the exporter
    would take a size from any input that has it, and so the size for an operator from the engine that waits for it.

    Args:
        artifact: Whose hash was checked.
        wanted: Values that operators give and that are needed, by their names in the saved program, each once.
        called: What the caller's graph calls the inputs of the program and what engines give, by the same names.
        lines: The line of the model that a node comes from, by the node's name; may be empty.
        prefix: What the names of all other values begin with.

    Returns:
        The operators.

    Raises:
        ArtifactError: The archive is damaged.
        ConfigurationError: An operator has no form in ONNX; the message names it and its line.
        EnvironmentMismatchError: PyTorch or ``onnxscript`` is missing.
    """
    _check_installed(artifact)
    nodes: list[NodeProto] = []
    initializers: list[TensorProto] = []
    names = dict(called)
    with EpFile(artifact.path) as file:
        document = read_document(artifact, file)
        described = document["graph_module"]["graph"]["nodes"]
        places = _places(described, lines)
        with _damage_as_artifact_error(artifact):
            stages = stages_of(described, wanted)
        for number, stage in enumerate(stages):
            with _damage_as_artifact_error(artifact):
                _check_targets(stage.nodes)
                part = copy.deepcopy(document)
                inputs = _only(part, stage)
                archive = _archive(file, part)
            graph = _translated(artifact, archive, places).graph
            if (len(graph.input), len(graph.output)) != (len(inputs), len(stage.gives)):
                raise RuntimeError("PyTorch's exporter changed the number of inputs or outputs")
            renamed = {value.name: names[name] for value, name in zip(graph.input, inputs)}
            own = f"{prefix}{number}/" if number else prefix
            names.update(
                (name, renamed.get(value.name, f"{own}{value.name}")) for name, value in zip(stage.gives, graph.output)
            )
            _rename(graph, renamed, own)
            nodes.extend(graph.node)
            initializers.extend(graph.initializer)
    return Operators(tuple(nodes), tuple(initializers), tuple(names[name] for name in wanted))


@contextlib.contextmanager
def _damage_as_artifact_error(artifact: Artifact) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError, StopIteration) as error:
        reason = f"its program is not one of engines and tensors: {type(error).__name__}: {str(error)[:300]}"
        raise ArtifactError(artifact.path, [reason]) from error


def _check_installed(artifact: Artifact) -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"part of {artifact.path.name} runs in PyTorch, and translating that into ONNX needs PyTorch, which is not "
            "installed here. Export with formats=('ep', 'onnx'), which writes the model where PyTorch is, or run "
            '`lightning-trt-windows onnx` there: pip install "lightning-trt-windows[rtx,onnx]"'
        ) from error
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"part of {artifact.path.name} runs in PyTorch, and translating that into ONNX needs the package "
            'onnxscript: pip install "lightning-trt-windows[onnx]"'
        ) from error


def _places(nodes: Iterable[Mapping[str, Any]], lines: Mapping[str, str]) -> dict[str, str]:
    """What calls each node: the operator, and the line of the model or, where it is not known, the module."""
    found = {}
    for node in nodes:
        stack = str((node.get("metadata") or {}).get("nn_module_stack", ""))
        inside = [entry.split(",")[1] for entry in stack.split(";") if entry.count(",") >= 2]
        module = f" (in {inside[-1]})" if inside and inside[-1] else ""
        operator = str(node["target"]).removeprefix("torch.ops.")
        for name in [str(node.get("name", "")), *results_of(node)]:
            found[name] = f"{operator}{lines.get(name) or module}"
    return found


def _only(document: dict[str, Any], stage: Stage) -> list[str]:
    """Keep of a program what ``stage`` computes; everything else that it takes becomes an input.

    Returns:
        Names of the inputs.
    """
    program = document["graph_module"]
    graph, signature = program["graph"], program["signature"]
    used = {*values_in([argument["arg"] for node in stage.nodes for argument in node["inputs"]]), *stage.gives}
    given: list[str] = []
    lifted: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for item, spec in zip(graph["inputs"], signature["input_specs"], strict=True):
        ((kind, _),) = spec.items()
        if kind in _LIFTED:
            lifted.append((item, spec))
        elif "as_tensor" in item:
            given.append(item["as_tensor"]["name"])
        elif kind not in ("user_input", "constant_input"):
            raise ValueError(f"it has an input of the kind {kind}")
    computed = {name for node in stage.nodes for name in results_of(node)}
    for node in graph["nodes"]:
        given.extend(name for name in results_of(node) if name not in computed)
    graph["nodes"] = list(stage.nodes)
    lifted = [(item, spec) for item, spec in lifted if item["as_tensor"]["name"] in used]
    given = [name for name in given if name in used]
    values = [{"as_tensor": {"name": name}} for name in given]
    results = [{"as_tensor": {"name": name}} for name in stage.gives]
    graph["inputs"] = [*(item for item, _ in lifted), *values]
    graph["outputs"] = results
    signature["input_specs"] = [*(spec for _, spec in lifted), *({"user_input": {"arg": value}} for value in values)]
    signature["output_specs"] = [{"user_output": {"arg": value}} for value in results]
    _call_with_leaves(program, len(given), len(stage.gives))
    _on_the_host(document)
    _check_expressions(document)
    return given


def _call_with_leaves(program: dict[str, Any], inputs: int, outputs: int) -> None:
    """Take and return flat tuples."""
    from torch.utils import _pytree as pytree

    first = program["module_call_graph"][0]
    call = copy.deepcopy(first["signature"])
    call["in_spec"] = pytree.treespec_dumps(pytree.tree_structure(((0,) * inputs, {})))
    call["out_spec"] = pytree.treespec_dumps(pytree.tree_structure((0,) * outputs))
    call["inputs"] = call["outputs"] = []
    call["forward_arg_names"] = None
    program["module_call_graph"] = [{**first, "fqn": "", "signature": call}]
    program["treespec_namedtuple_fields"] = {}


def _on_the_host(tree: Any) -> None:
    """Devices are those of a PC; here everything is translated without one."""
    for part in objects_in(tree):
        if part.get("type") == "cuda" and set(part) <= {"type", "index"}:
            part.update(type="cpu", index=None)


def _check_targets(nodes: Iterable[Mapping[str, Any]]) -> None:
    """Refuse calls of what is neither an operator nor arithmetic, which PyTorch's loader would take."""
    from lightning_trt_windows.runtime.operators import resolve

    for node in nodes:
        if str(node["target"]).startswith("torch.ops.torchvision."):
            with contextlib.suppress(ImportError):  # `resolve` says what is missing
                importlib.import_module("torchvision")
        resolve(node["target"])


def _check_expressions(tree: Any) -> None:
    for part in objects_in(tree):
        text = part.get("expr_str", "")
        if not _EXPRESSION.fullmatch(_SYMBOL.sub("", str(text))):
            raise ValueError(f"it has the size {str(text)[:100]!r}, which is not one of symbols and numbers")


def _archive(file: EpFile, document: Mapping[str, Any]) -> io.BytesIO:
    """The saved program with ``document`` for its graph; nothing in it is a pickle."""
    out = io.BytesIO()
    (graph,) = (name for name in file.members if name.partition("/")[2] == GRAPH)
    folder = graph.removesuffix(GRAPH)
    used = {
        content[f"{kind}_name"]
        for spec in document["graph_module"]["signature"]["input_specs"]
        for kind, content in spec.items()
        if kind in _LIFTED
    }
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(graph, json.dumps(document))
        archive.writestr(f"{folder}data/sample_inputs/model.pt", b"")
        needed: set[str] = set()
        for config in _CONFIGS:
            described = json.loads(file.archive.read(folder + config))
            entries = {name: entry for name, entry in described["config"].items() if name in used}
            for name, entry in entries.items():
                if entry["use_pickle"] or entry["tensor_meta"] is None:
                    raise ValueError(f"its weight {name} is a pickle or another object, not a plain tensor")
                needed.add(f"{config.rpartition('/')[0]}/{entry['path_name']}")
            described["config"] = entries
            _on_the_host(described)
            archive.writestr(folder + config, json.dumps(described))
        for name in file.members:
            inner = name.removeprefix(folder)
            if _PLAIN.fullmatch(inner) and (not inner.startswith("data/") or inner in needed):
                archive.writestr(name, file.archive.read(name))
    out.seek(0)
    return out


def _translated(artifact: Artifact, archive: io.BytesIO, places: Mapping[str, str]) -> ModelProto:
    import torch

    from lightning_trt_windows._compat.torch import cpu_convolution_heuristics_off, only_symbols_have_ranges
    from lightning_trt_windows.progress.upstream_output import quiet

    with quiet() as log, cpu_convolution_heuristics_off():
        try:
            program = torch.export.load(archive)
        # it raises whatever it meets in a file that it does not know
        except Exception as error:
            said = " ".join([str(error), *log[-2:]])
            by = artifact.manifest.versions.get("torch", "an unknown version")
            reason = (
                f"its operators, which PyTorch {by} wrote, cannot be read by PyTorch {torch.__version__}: "
                f"{type(error).__name__}: {said}"
            )
            raise ArtifactError(artifact.path, [reason[:600]]) from error
        only_symbols_have_ranges(program)
        try:
            onnx_program = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                custom_translation_table=_own_translations(),
            )
        # so does the exporter, with its own classes inside
        except Exception as error:
            raise ConfigurationError(_why(artifact, error, places)) from error
    assert onnx_program is not None, "with dynamo=True the exporter returns what it made"
    model: ModelProto = onnx_program.model_proto
    if (size := model.ByteSize()) > _LARGEST:
        raise ConfigurationError(
            f"what {artifact.path.name} leaves to PyTorch has weights of {size / 1e9:.1f} GB, and an ONNX model ends "
            "at 2 GB"
        )
    _check_types(artifact, model.graph)
    return model


def _check_types(artifact: Artifact, graph: GraphProto) -> None:
    """Refuse what ONNX Runtime's CPU provider has no kernel for (seen: 1.32): it does not load such a model."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    computing = {
        node.op_type
        for node in graph.node
        if node.op_type not in _TAKE_BFLOAT16
        and any(types.get(name) == _BFLOAT16 for name in (*node.input, *node.output))
    }
    if computing:
        raise ConfigurationError(
            f"{artifact.path.name} cannot become an ONNX model: what it leaves to PyTorch computes in bfloat16 "
            f"({', '.join(sorted(computing))}), and ONNX Runtime's CPU provider does not. It does in float16 and "
            "float32: precision='16' or '32'"
        )


def _own_translations() -> dict[Any, Any]:
    """Operators that the exporter (torch 2.14 with onnxscript 0.7) does not know and that ONNX can say."""
    import torch
    from onnxscript import opset18 as op

    def hypot(a: Any, b: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(a, a), op.Mul(b, b)))

    return {torch.ops.aten.hypot.default: hypot}


def _why(artifact: Artifact, error: BaseException, places: Mapping[str, str]) -> str:
    """Name the operator that could not be translated, the line of the model, and what the exporter said."""
    causes = list(_causes(error))
    text = "\n".join(str(cause) for cause in causes)
    target = _TARGET.search(text)
    # the exporter takes operators apart first, and calls the parts like the whole
    node = re.search(r"%(\w+) :", text)
    operator = places.get(node[1], "") if node else ""
    operator = operator or (target[1] if target else "part of it")
    reason = str(causes[-1]).strip().splitlines()
    said = reason[0][:300] if reason else type(error).__name__
    return (
        f"{artifact.path.name} cannot become an ONNX model: {operator} runs in PyTorch, between engines or beside "
        f"them, and PyTorch's exporter cannot translate it into ONNX: {said}. Where the module can do without it, the "
        "program becomes one"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _rename(graph: GraphProto, renamed: Mapping[str, str], prefix: str) -> None:
    def new(name: str) -> str:
        return renamed.get(name, f"{prefix}{name}") if name else ""

    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new(value.name)
        value.doc_string = ""
    for node in graph.node:
        node.name = f"{prefix}{node.name}"
        # where in PyTorch and on which machine a node is from
        node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, renamed, prefix)
