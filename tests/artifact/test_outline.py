"""The outline of a program: where each value comes from, read without PyTorch."""

from __future__ import annotations

import dataclasses
import shutil
import struct
from pathlib import Path

import pytest
from support.outlines import EnginesOnly, Several
from support.paths import DATA
from support.stand_in import StandIn, export_for_test

from lightning_trt_windows.artifact.artifact import ArtifactPaths, read_artifact
from lightning_trt_windows.artifact.outline import Origin, _rows, read_constant, read_outline
from lightning_trt_windows.errors import ArtifactError


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """An artifact with an operator in PyTorch."""
    return export_for_test(Several(), Several.inputs(), tmp_path_factory.mktemp("several") / "several.windows.ep")


@pytest.fixture(scope="module")
def engines_only(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """An artifact without one."""
    return export_for_test(EnginesOnly(), EnginesOnly.inputs(), tmp_path_factory.mktemp("only") / "only.windows.ep")


def test_one_engine_is_one_to_one() -> None:
    """The frozen sample is an engine with one input and one output."""
    outline = read_outline(read_artifact(DATA / "tiny.windows.ep"))
    assert outline.calls[0].inputs == (Origin("input", 0),)
    assert outline.calls[0].output_types == ("float32",)
    assert outline.outputs == (Origin("engine", 0, 0),)
    assert outline.one_to_one
    assert outline.engines_only


def test_operators_in_pytorch_are_named(several: StandIn) -> None:
    """What an operator gives is neither an engine's nor an input's."""
    outline = read_outline(several.artifact)
    assert outline.operators == ("torch.ops.aten.special_airy_ai.default",)
    assert outline.steps == (0, "torch.ops.aten.special_airy_ai.default")
    assert [origin.kind for origin in outline.outputs] == ["engine", "input", "constant", "engine", "operator"]
    assert outline.outputs[1] == Origin("input", 0)
    assert not outline.engines_only
    assert not outline.one_to_one


def test_engines_may_compute_everything_and_not_be_one_to_one(engines_only: StandIn) -> None:
    """An input that is returned and an output that comes twice are no bindings of their own."""
    outline = read_outline(engines_only.artifact)
    assert outline.engines_only
    assert not outline.one_to_one


def test_constants_are_read(several: StandIn, engines_only: StandIn) -> None:
    """Their elements stand in row-major order."""
    (zeros,) = (origin for origin in read_outline(several.artifact).outputs if origin.kind == "constant")
    constant = read_constant(several.artifact, zeros.name)
    assert (constant.dtype, constant.shape, constant.content) == ("float32", (1,), bytes(4))
    (offset,) = (origin for origin in read_outline(engines_only.artifact).outputs if origin.kind == "constant")
    constant = read_constant(engines_only.artifact, offset.name)
    assert constant.shape == (2, 2)
    assert struct.unpack("<4f", constant.content) == (1.5, 2.5, 3.5, 4.5)
    with pytest.raises(ArtifactError, match=r"its constant 'nothing' cannot be read: .*not in the archive"):
        read_constant(several.artifact, "nothing")


def test_strides_are_followed() -> None:
    """A transposed tensor is read in its own order, and none reads beyond its memory."""
    memory = bytes(range(6))
    assert b"".join(_rows(memory, 1, (3, 2), (1, 3), 0)) == bytes([0, 3, 1, 4, 2, 5])
    assert b"".join(_rows(memory, 1, (2, 2), (3, 1), 1)) == bytes([1, 2, 4, 5])
    assert b"".join(_rows(memory, 2, (), (), 1)) == bytes([2, 3])
    assert b"".join(_rows(memory, 1, (2,), (0,), 4)) == bytes([4, 4])
    with pytest.raises(ValueError, match="beyond its memory"):
        _rows(memory, 2, (4,), (1,), 0)


def test_a_program_that_the_manifest_does_not_describe_is_refused(tmp_path: Path) -> None:
    """Another number of inputs or outputs, or no program at all."""
    shutil.copy(DATA / "tiny.windows.ep", tmp_path)
    artifact = read_artifact(DATA / "tiny.windows.ep")
    none = dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, inputs=()))
    with pytest.raises(ArtifactError, match="it has 1 inputs, the manifest 0"):
        read_outline(none)
    twice = dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, outputs=()))
    with pytest.raises(ArtifactError, match="it has 1 outputs, the manifest 0"):
        read_outline(twice)
    paths = ArtifactPaths.of(tmp_path / "tiny.windows.ep")
    paths.ep.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="is not a readable zip archive"):
        read_outline(dataclasses.replace(artifact, path=paths.ep))
