"""Run ONNX models of artifacts with ONNX Runtime on a CPU: each engine's own partition stands in for its node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from lightning_trt_windows.onnx.ordering import _needed
from support.stand_in import StandIn

__all__ = ["optimized_bindings", "run_with_partitions"]


def run_with_partitions(path: Path, stand_in: StandIn, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the model gives. Its operators are run by ONNX Runtime, in as few pieces as the engines leave."""
    model = onnx.shape_inference.infer_shapes(_without_engine_bytes(onnx.load(path)))
    infos = {v.name: v for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    values: dict[str, Any] = dict(inputs)
    waiting: list[onnx.NodeProto] = []
    asked = [output.name for output in model.graph.output]
    for node in model.graph.node:
        if node.op_type != "EPContext":
            waiting.append(node)
            continue
        waiting = _run(model, waiting, node.input, infos, values)
        record = stand_in.artifact.manifest.engines[int(node.name.removeprefix("engine_"))]
        given = [_tensor(values[name]) for name in node.input]
        result = stand_in.partitions[record.name](*given)
        results = result if isinstance(result, (tuple, list)) else [result]
        values.update(zip(node.output, (_array(tensor) for tensor in results), strict=True))
    _run(model, waiting, asked, infos, values)
    return {name: values[name] for name in asked}


def _tensor(value: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(value))


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


def _run(
    model: onnx.ModelProto,
    waiting: Sequence[onnx.NodeProto],
    asked: Iterable[str],
    infos: Mapping[str, Any],
    values: dict[str, Any],
) -> list[onnx.NodeProto]:
    """Compute ``asked`` by those of ``waiting`` that it needs; returns those that it does not."""
    needed = {name for name in asked if name not in values}
    chosen: list[onnx.NodeProto] = []
    rest: list[onnx.NodeProto] = []
    for node in reversed(waiting):
        if needed.intersection(node.output):
            chosen.append(node)
            needed.update(name for name in _needed(node) if name not in values)
        else:
            rest.append(node)
    if not chosen:
        return list(waiting)
    chosen.reverse()
    made = {name for node in chosen for name in node.output if name}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = dict.fromkeys(name for node in chosen for name in _needed(node) if name and name not in made)
    results = [name for name in made if name in infos]
    graph = onnx.helper.make_graph(
        chosen,
        "piece",
        [_without_shape(infos[name]) for name in taken if name not in stored],
        [_without_shape(infos[name]) for name in results],
        initializer=[stored[name] for name in taken if name in stored],
    )
    piece = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(piece.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {value.name: values[value.name] for value in session.get_inputs()}
    values.update(zip(results, session.run(results, given)))
    return rest[::-1]


def _without_shape(info: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(info)
    copied.type.tensor_type.ClearField("shape")
    return copied


def _without_engine_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what nobody reads here."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "ep_cache_context":
                attribute.s = b""
    return model


def optimized_bindings(model: onnx.ModelProto, folder: Path) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """What each engine's node takes and gives after ONNX Runtime has optimized the model, in the order before.

    ONNX Runtime on the CPU has no ``EPContext``: nodes of ONNX that take and give the same values stand in its place.
    """
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.value_info, *model.graph.output]}
    nodes = []
    constants: list[onnx.TensorProto] = []

    def constant(type: int, values: list[Any]) -> str:
        constants.append(onnx.helper.make_tensor(f"stand_in/{len(constants)}", type, [len(values)], values))
        return constants[-1].name

    for node in model.graph.node:
        if node.op_type != "EPContext":
            nodes.append(node)
            continue
        # of no length that the optimizer knows, so that what is made with it has no shape for it; and no two of them
        # alike, or it would make one of them
        lengths = []
        for number, name in enumerate(node.input):
            part, length = f"{node.name}/in.{number:03}", f"{node.name}/length.{number:03}"
            some = constant(onnx.TensorProto.BOOL, [True] * (1 + len(constants)))
            nodes.append(onnx.helper.make_node("Compress", [name, some], [part], name=part))
            nodes.append(onnx.helper.make_node("Shape", [part], [length]))
            lengths.append(length)
        all_lengths, some = f"{node.name}/lengths", constant(onnx.TensorProto.BOOL, [True])
        sizes = f"{node.name}/sizes"
        nodes.append(onnx.helper.make_node("Concat", lengths, [all_lengths], axis=0))
        nodes.append(onnx.helper.make_node("Compress", [all_lengths, some], [sizes]))
        for number, name in enumerate(node.output):
            shape, cast, out = (f"{node.name}/{what}.{number:03}" for what in ("shape", "cast", "out"))
            more = constant(onnx.TensorProto.INT64, [1 + len(constants)])
            nodes.append(onnx.helper.make_node("Add", [sizes, more], [shape]))
            nodes.append(onnx.helper.make_node("Cast", [shape], [cast], to=types[name]))
            nodes.append(onnx.helper.make_node("Expand", [cast, shape], [name], name=out))
    replaced = onnx.ModelProto()
    replaced.CopyFrom(model)
    del replaced.graph.node[:]
    replaced.graph.node.extend(nodes)
    replaced.graph.initializer.extend(constants)
    for value in [*replaced.graph.value_info, *replaced.graph.output]:
        value.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(replaced.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = {node.name: node for node in onnx.load(folder / "optimized.onnx").graph.node}
    bindings = {}
    for node in model.graph.node:
        if node.op_type == "EPContext":
            taken = tuple(found[n].input[0] for n in sorted(found) if n.startswith(f"{node.name}/in."))
            given = tuple(found[n].output[0] for n in sorted(found) if n.startswith(f"{node.name}/out."))
            bindings[node.name] = (taken, given)
    return bindings
