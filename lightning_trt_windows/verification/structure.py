"""Whether the program in an ``.ep``, its engines and the manifest fit together. Nothing is run or unpickled."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.fx import Node

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.manifest import EngineRecord, InputRecord, OutputRecord
from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.runtime.loaded import assemble
from lightning_trt_windows.runtime.program_graph import DTYPES, Leaf
from lightning_trt_windows.runtime.program_reader import Program, damage_as_artifact_error, read_program

__all__ = ["structure_issues"]


def structure_issues(artifact: Artifact) -> Iterator[str]:
    """What does not fit, sentence by sentence. The content of the ``.ep`` must be that of its hash.

    The engines' calls against their bindings, the program's arguments and results against the manifest's inputs and
    outputs, by number, name, dtype and size.
    """
    try:
        with EpFile(artifact.path) as file:
            program = read_program(artifact, file, torch.device("cpu"))
        with damage_as_artifact_error(artifact):
            # engines that are never called: putting together is what is checked
            assemble(artifact, program, [_not_run] * len(artifact.manifest.engines), torch.device("cpu"))
            issues = [*_binding_issues(program, artifact.manifest.engines), *_signature_issues(artifact, program)]
        yield from issues
    except ArtifactError as error:
        yield from (f"{error.where}: {issue}" if error.where != str(artifact.path) else issue for issue in error.issues)
    except OSError as error:
        yield f"the program cannot be read: {error}"


def _not_run(inputs: Any) -> Any:
    raise AssertionError("the structure is checked without running anything")


def _binding_issues(program: Program, engines: tuple[EngineRecord, ...]) -> Iterator[str]:
    for node in program.graph.graph.nodes:
        if node.op != "call_module":
            continue
        engine = engines[_number(node)]
        given = node.args[0]
        count = len(given) if isinstance(given, (list, tuple)) else 1
        if count != len(engine.inputs):
            yield f"engine {engine.name}: is called with {count} tensors, the manifest lists {len(engine.inputs)}"
        taken = [user.args[1] for user in node.users if user.target is operator.getitem]
        if beyond := [index for index in taken if not isinstance(index, int) or index >= len(engine.outputs)]:
            yield f"engine {engine.name}: result {beyond[0]} is read, the manifest lists {len(engine.outputs)} outputs"


def _signature_issues(artifact: Artifact, program: Program) -> Iterator[str]:
    manifest, described = artifact.manifest, program.described["tensor_values"]
    tensors = [leaf for leaf in program.graph.leaves if leaf.is_tensor]
    # torch.export calls an argument by its path with underscores; one that is called like another input is swapped
    by_path = {re.sub(r"\W", "_", record.name): record.name for record in manifest.inputs}
    for record, leaf in zip(manifest.inputs, tensors):
        if (other := by_path.get(leaf.name, record.name)) != record.name:
            yield f"input {record.name}: is where the program has {other}"
        yield from _input_issues(record, leaf, described.get(leaf.name))
    results = program.described["outputs"]
    if len(results) != len(manifest.outputs) or program.out_spec.num_leaves != len(manifest.outputs):
        yield (
            f"outputs: the program returns {len(results)} values in a structure of {program.out_spec.num_leaves}, the "
            f"manifest lists {len(manifest.outputs)}"
        )
        return
    for output, result in zip(manifest.outputs, results):
        yield from _output_issues(output, result, described)
    unused = [node for node in program.graph.graph.nodes if node.op == "call_module" and not _reaches_output(node)]
    yield from (f"engine {manifest.engines[_number(node)].name}: nothing of it reaches an output" for node in unused)


def _input_issues(record: InputRecord, leaf: Leaf, value: Any) -> Iterator[str]:
    if value is None:
        yield f"input {record.name}: the program does not describe {leaf.name}"
        return
    dtype = str(DTYPES.get(value["dtype"])).removeprefix("torch.")
    if dtype != record.dtype:
        yield f"input {record.name}: is {dtype} in the program, {record.dtype} in the manifest"
    sizes = [size.get("as_int") for size in value["sizes"]]
    if len(sizes) != len(record.min):
        yield f"input {record.name}: has {len(sizes)} dimensions in the program, {len(record.min)} in the manifest"
        return
    for axis, (size, low, high, symbol) in enumerate(zip(sizes, record.min, record.max, record.symbols)):
        if size is not None and not low == high == size:
            yield f"input {record.name}: axis {axis} is always {size} in the program, {low} to {high} in the manifest"
        elif size is None and symbol is None:
            yield f"input {record.name}: axis {axis} is dynamic in the program, always {low} in the manifest"


def _output_issues(record: OutputRecord, result: Mapping[str, Any], described: Mapping[str, Any]) -> Iterator[str]:
    if "as_tensor" not in result:
        return
    value = described.get(result["as_tensor"]["name"])
    if value is None:
        yield f"output {record.name}: the program does not describe it"
        return
    dtype = str(DTYPES.get(value["dtype"])).removeprefix("torch.")
    if dtype != record.dtype:
        yield f"output {record.name}: is {dtype} in the program, {record.dtype} in the manifest"
    if len(value["sizes"]) != len(record.shape):
        count, listed = len(value["sizes"]), len(record.shape)
        yield f"output {record.name}: has {count} dimensions in the program, {listed} in the manifest"


def _number(node: Node) -> int:
    return int(str(node.target).removeprefix("engine_"))


def _reaches_output(node: Node) -> bool:
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        if current.op == "output":
            return True
        fresh = set(current.users) - seen
        seen |= fresh
        pending.extend(fresh)
    return False
