"""Our archives load to the very nodes and arguments that upstream's own save gives for the same model.

Upstream's functions are made to work in a process of their own (``upstream_reference.py``); engines are real. What
differs on purpose is listed here and nowhere else: a new difference is a failed test.
"""

from __future__ import annotations

import base64
import dataclasses
import operator
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support import upstream_reference
from support.upstream_reference import MODELS
from torch.export import ExportedProgram
from torch.fx import Node

from lightning_trt_windows._compat.bindings import installed_version
from lightning_trt_windows._compat.cpu_build import is_cpu_build
from lightning_trt_windows._compat.torch_tensorrt import upstream
from lightning_trt_windows._compat.versions import minor
from lightning_trt_windows.artifact.engine_header import read_header
from lightning_trt_windows.backends import CompiledProgram, get_backend
from lightning_trt_windows.export.pipeline import _write_program
from lightning_trt_windows.settings import ExportSettings

pytestmark = [
    pytest.mark.skipif(is_cpu_build(), reason="upstream's own save needs its libraries"),
    pytest.mark.skipif(
        minor(installed_version("torch-tensorrt-rtx")) == (2, 11),
        reason="2.11's own files lack a field that its loader reads: ours cannot be like them",
    ),
]

RECORDED_ON_PURPOSE = {
    # the machine that built it may have any GPU or none; the engine runs on Ampere and newer
    "DEVICE_IDX": lambda field: field == "0%8%0%0%NVIDIA",
    # makes the loader accept every GPU from the recorded capability on, not only the recorded one
    "HW_COMPATIBLE_IDX": lambda field: field == "1",
}
"""Fields of an engine node that are not upstream's, each with what it must be."""

SETTINGS_ON_PURPOSE = {
    # upstream's switch for functions that we do not call; the platform field of the node says Windows
    "enable_cross_compile_for_windows",
    # a path on the machine that built the engine
    "timing_cache_path",
}
"""Upstream's settings, pickled inside the node, that differ. The runtime reads none of them."""


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportedProgram]:
    """What upstream makes of each model, loaded."""
    directory = tmp_path_factory.mktemp("upstream")
    command = [sys.executable, upstream_reference.__file__, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    upstream()  # registers the operator of the engine nodes
    return {name: torch.export.load(directory / f"{name}.ep") for name in MODELS}


@pytest.fixture(scope="module")
def compiled() -> dict[str, CompiledProgram]:
    """Each model from our backend."""
    backend = get_backend("tensorrt_rtx")
    return {
        name: backend.compile(model.program(), ExportSettings(compile_options=model.options))
        for name, model in MODELS.items()
    }


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, compiled: Mapping[str, CompiledProgram]
) -> dict[str, ExportedProgram]:
    """What our writer makes of each model, loaded in the same way."""
    directory = tmp_path_factory.mktemp("ours")
    for name, program in compiled.items():
        _write_program(directory / f"{name}.ep", program)
    return {name: loaded(directory / f"{name}.ep") for name in MODELS}


def loaded(path: Path) -> ExportedProgram:
    """``torch.export.load``; without a GPU, weights and constants that belong there are sent to the CPU first."""
    with zipfile.ZipFile(path) as archive:
        weights = any("/weights/" in member and not member.endswith(".json") for member in archive.namelist())
        if not weights or torch.cuda.is_available():
            return torch.export.load(path)
        here = path.with_suffix(".cpu.ep")
        with zipfile.ZipFile(here, "w") as copy:
            for member in archive.namelist():
                cuda, cpu = b'{"type": "cuda", "index": 0}', b'{"type": "cpu", "index": null}'
                copy.writestr(member, archive.read(member).replace(cuda, cpu))
    return torch.export.load(here)


@pytest.fixture(params=MODELS)
def pair(
    request: pytest.FixtureRequest, artifacts: Mapping[str, ExportedProgram], references: Mapping[str, ExportedProgram]
) -> tuple[ExportedProgram, ExportedProgram]:
    """Ours and upstream's of one model."""
    return artifacts[request.param], references[request.param]


Pair = tuple[ExportedProgram, ExportedProgram]


def engine_nodes(program: ExportedProgram) -> list[Node]:
    """The nodes that hold engines, in order."""
    return [node for node in program.graph.nodes if node.target is upstream().no_op]


def fields(node: Node) -> dict[str, str]:
    """The string arguments of an engine node by upstream's names for them."""
    layout = upstream().layout
    names = {getattr(layout, name): name for name in dir(layout) if name.endswith("_IDX")}
    values = node.args[1:]
    assert sorted(names) == list(range(len(values))), "upstream's layout has other fields than the node"
    return {names[index]: value for index, value in enumerate(values)}  # type: ignore[misc]


def metadata(node: Node) -> dict[str, Any]:
    """Upstream's pickled record; both files were made here, by this test."""
    decoded: dict[str, Any] = pickle.loads(base64.b64decode(fields(node)["SERIALIZED_METADATA_IDX"]))
    return decoded


def described(value: Any) -> Any:
    """Dtype and shape of what a node gives; the symbols in words, so that those of two programs compare."""
    if isinstance(value, (tuple, list)):
        return [described(item) for item in value]
    return (value.dtype, tuple(str(size) for size in value.shape)) if isinstance(value, torch.Tensor) else value


def test_same_nodes(pair: Pair) -> None:
    """The same operators in the same order, wired in the same way, giving the same dtypes and shapes."""
    ours, theirs = (list(program.graph.nodes) for program in pair)
    assert [(n.op, str(n.target), n.name) for n in ours] == [(n.op, str(n.target), n.name) for n in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert [n.name for n in one.all_input_nodes] == [n.name for n in other.all_input_nodes]
        assert described(one.meta.get("val")) == described(other.meta.get("val"))
        if one.target not in (upstream().no_op, operator.getitem):
            assert str(one.args) == str(other.args)
            assert {k: v for k, v in one.kwargs.items() if k != "device"} == {
                k: v for k, v in other.kwargs.items() if k != "device"
            }


def test_same_engine_fields(pair: Pair) -> None:
    """Every argument of every engine node: ABI, name, bindings, platform, allocator, and whatever upstream adds."""
    ours, theirs = (engine_nodes(program) for program in pair)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        compared = fields(one).keys() - RECORDED_ON_PURPOSE.keys() - {"ENGINE_IDX", "SERIALIZED_METADATA_IDX"}
        assert {"ABI_TARGET_IDX", "NAME_IDX", "INPUT_BINDING_NAMES_IDX", "TARGET_PLATFORM_IDX"} <= compared
        for name in compared:
            assert fields(one)[name] == fields(other)[name], name


@pytest.mark.parametrize("model", MODELS)
def test_engines_are_the_built_ones(
    model: str,
    compiled: Mapping[str, CompiledProgram],
    artifacts: Mapping[str, ExportedProgram],
    references: Mapping[str, ExportedProgram],
) -> None:
    """Ours byte by byte what TensorRT gave; upstream's a build of the same network.

    TensorRT numbers inner tensors differently from build to build now and then, so the two builds are compared by size
    and header: version, GPU generations.
    """
    plans = {engine.name: bytes(engine.plan) for engine in compiled[model].engines.values()}
    for one, other in zip(engine_nodes(artifacts[model]), engine_nodes(references[model]), strict=True):
        ours, theirs = (base64.b64decode(fields(node)["ENGINE_IDX"], validate=True) for node in (one, other))
        assert ours == plans[fields(one)["NAME_IDX"].removesuffix("_engine")]
        header = read_header(ours)
        assert header is not None
        assert header == read_header(theirs)
        assert len(ours) == len(theirs)


def test_fields_that_differ_are_what_they_are_meant_to_be(pair: Pair) -> None:
    """The device record names no GPU of the machine that exported."""
    for one, other in zip(*(engine_nodes(program) for program in pair), strict=True):
        for name, as_meant in RECORDED_ON_PURPOSE.items():
            assert fields(one)[name] != fields(other)[name], f"{name} could leave the list of differences"
            assert as_meant(fields(one)[name]), name


def test_same_metadata(pair: Pair) -> None:
    """The record inside: how output shapes follow from input shapes, and the settings but for the listed ones."""
    for nodes in zip(*(engine_nodes(program) for program in pair), strict=True):
        one, other = (metadata(node) for node in nodes)
        # before 2.13 it has names of weights too, for refitting an engine, which none built without a GPU can be
        assert other.keys() - one.keys() <= {"weight_name_map"}
        assert one.keys() <= other.keys()
        assert str(one["inout_symexprs"]) == str(other["inout_symexprs"])
        assert one["output_tensors_are_unowned"] == other["output_tensors_are_unowned"]
        differing = {
            option.name
            for option in dataclasses.fields(one["settings"])
            for a, b in [(getattr(one["settings"], option.name), getattr(other["settings"], option.name))]
            if a != b and repr(a) != repr(b)  # upstream's Device defines no equality
        }
        assert differing == SETTINGS_ON_PURPOSE


def test_same_calling_convention(pair: Pair) -> None:
    """Structure of inputs and outputs, and the names of what goes in and comes out."""
    ours, theirs = pair
    assert ours.call_spec.in_spec == theirs.call_spec.in_spec
    assert ours.call_spec.out_spec == theirs.call_spec.out_spec
    assert ours.graph_signature.user_inputs == theirs.graph_signature.user_inputs
    assert ours.graph_signature.user_outputs == theirs.graph_signature.user_outputs


def test_same_weights_beside_the_engines(pair: Pair) -> None:
    """What stays in PyTorch has the same weights under the same names."""
    ours, theirs = pair
    assert ours.state_dict.keys() == theirs.state_dict.keys()
    for name, weight in ours.state_dict.items():
        assert torch.equal(weight.cpu(), theirs.state_dict[name].cpu())


def test_a_batch_of_one_is_ours_alone(pair: Pair) -> None:
    """Upstream's range starts at 2, because PyTorch's tracer takes a size of 1 for a constant; the engine takes 1."""
    ours, theirs = pair
    assert [(r.lower, r.upper) for r in ours.range_constraints.values()] == [(1, 16)]
    assert [(r.lower, r.upper) for r in theirs.range_constraints.values()] == [(2, 16)]
