"""ONNX models of artifacts: read by ONNX and ONNX Runtime, and computed with partitions in the place of engines."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.onnx_models import optimized_bindings, run_with_partitions
from support.outlines import EnginesOnly
from support.paths import DATA
from support.stand_in import StandIn, export_for_test

from lightning_trt_windows import InputSpec, write_onnx
from lightning_trt_windows.artifact.artifact import read_artifact, write_manifest
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.outline import EngineCall, Origin, Outline
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import ArtifactError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.onnx import model as writing


@pytest.fixture(scope="module")
def engines_only(tmp_path_factory: pytest.TempPathFactory) -> tuple[EnginesOnly, StandIn]:
    """A module, and its artifact."""
    torch.manual_seed(0)
    module = EnginesOnly().eval()
    path = tmp_path_factory.mktemp("only") / "only.windows.ep"
    return module, export_for_test(module, EnginesOnly.inputs(), path)


class TestModel:
    """The graph around the engines."""

    @pytest.mark.parametrize("embed", [False, True])
    def test_outputs_are_those_of_the_module(
        self, engines_only: tuple[EnginesOnly, StandIn], tmp_path: Path, embed: bool
    ) -> None:
        """Order, an input that is returned, an output that comes twice and a constant, at a size of the range."""
        module, stand_in = engines_only
        model = write_onnx(stand_in.artifact, tmp_path, embed=embed)
        given = {"ids": torch.randint(0, 50, (3, 16)), "image": torch.randn(3, 3, 4), "unused": torch.randn(3, 2)}
        found = run_with_partitions(model.path, stand_in, {name: value.numpy() for name, value in given.items()})
        expected = module(**given)
        assert list(found) == [f"output.{name}" for name in expected]
        for name, value in expected.items():
            np.testing.assert_allclose(found[f"output.{name}"], value.detach().numpy(), rtol=1e-5, atol=1e-6)

    def test_the_engine_is_a_file_of_its_own(self, tmp_path: Path) -> None:
        """The model names it, and its bytes are those that the manifest vouches for."""
        model = write_onnx(DATA / "tiny.windows.ep", tmp_path)
        assert str(model) == "tiny.windows.onnx, tiny.windows.engine"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.windows.engine", "tiny.windows.onnx"]
        assert sha256_of(model.engines[0]) == read_artifact(DATA / "tiny.windows.ep").manifest.engines[0].sha256
        (node,) = (node for node in onnx.load(model.path).graph.node if node.op_type == "EPContext")
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert attributes["ep_cache_context"] == b"tiny.windows.engine"
        assert (attributes["embed_mode"], attributes["main_context"]) == (0, 1)
        assert attributes["source"] == b"NvTensorRTRTXExecutionProvider"
        assert model.path.stat().st_size < 2000

    def test_the_engine_is_inside(self, tmp_path: Path) -> None:
        """Nothing beside the model."""
        model = write_onnx(DATA / "tiny.windows.ep", tmp_path, embed=True)
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.windows.onnx"]
        (node,) = (node for node in onnx.load(model.path).graph.node if node.op_type == "EPContext")
        context = next(attribute.s for attribute in node.attribute if attribute.name == "ep_cache_context")
        assert context[:4] == b"vtrt"
        assert len(context) == read_artifact(DATA / "tiny.windows.ep").manifest.engines[0].size

    def test_names_ranges_and_versions_travel(self, engines_only: tuple[EnginesOnly, StandIn], tmp_path: Path) -> None:
        """Inputs have the names of ``forward``, dynamic axes those of the manifest."""
        artifact = engines_only[1].artifact
        model = onnx.load(write_onnx(artifact, tmp_path).path)
        onnx.checker.check_model(model)
        assert [given.name for given in model.graph.input] == ["ids", "image", "unused"]
        shape = model.graph.input[1].type.tensor_type.shape
        assert [d.dim_param or d.dim_value for d in shape.dim] == [artifact.manifest.inputs[1].symbols[0], 3, 4]
        assert [output.name for output in model.graph.output] == [o.name for o in artifact.manifest.outputs]
        properties = {item.key: item.value for item in model.metadata_props}
        assert [properties[f"image.{bound}"] for bound in ("min", "opt", "max")] == ["1,3,4", "4,3,4", "8,3,4"]
        assert properties["tensorrt_rtx"] == artifact.manifest.versions["tensorrt-rtx"]
        assert not [key for key in properties if key.endswith(".in_program")]

    def test_bindings_of_other_names(self, tmp_path: Path) -> None:
        """An artifact of before bindings had the program's names: the model has the bindings' names, and says whose."""
        model = onnx.load(write_onnx(DATA / "tiny.windows.ep", tmp_path).path)
        assert [node.op_type for node in model.graph.node] == ["EPContext"]
        assert ([i.name for i in model.graph.input], [o.name for o in model.graph.output]) == (["input_1"], ["output0"])
        properties = {item.key: item.value for item in model.metadata_props}
        assert (properties["input_1.in_program"], properties["output0.in_program"]) == ("input", "output")
        assert properties["input_1.max"] == "8,4"
        assert properties["execution_provider_versions"] == "0.4.0"

    def test_an_output_called_as_an_input(self, tmp_path: Path) -> None:
        """Values of a model have one name each."""

        class Single(torch.nn.Module):
            def forward(self, output: torch.Tensor) -> torch.Tensor:
                return output * 2

        stand_in = export_for_test(Single(), {"output": InputSpec((2, 4))}, tmp_path / "single.windows.ep")
        model = write_onnx(stand_in.artifact)
        onnx.checker.check_model(onnx.load(model.path))
        given = torch.randn(2, 4)
        (found,) = run_with_partitions(model.path, stand_in, {"output": given.numpy()}).items()
        assert found[0] == stand_in.artifact.manifest.engines[0].outputs[0] != "output"
        np.testing.assert_allclose(found[1], given.numpy() * 2)

    def test_onnx_runtime_leaves_the_bindings_their_names(
        self, engines_only: tuple[EnginesOnly, StandIn], tmp_path: Path
    ) -> None:
        """Its optimizer removes nodes; the provider finds bindings by what the engine's node takes and gives."""
        model = onnx.load(write_onnx(engines_only[1].artifact, tmp_path).path)
        (context,) = (node for node in model.graph.node if node.op_type == "EPContext")
        engine = engines_only[1].artifact.manifest.engines[0]
        assert (tuple(context.input), tuple(context.output)) == (engine.inputs, engine.outputs)
        assert optimized_bindings(model, tmp_path) == {"engine_0": (engine.inputs, engine.outputs)}

    def test_the_optimizer_is_seen_to_rename(self, tmp_path: Path) -> None:
        """The check that the one above relies on: with an ``Identity`` between, names are not kept."""
        model = onnx.load(write_onnx(DATA / "tiny.windows.ep", tmp_path).path)
        assert optimized_bindings(model, tmp_path) == {"engine_0": (("input_1",), ("output0",))}
        model.graph.output[0].name = "output"
        model.graph.node.append(onnx.helper.make_node("Identity", ["output0"], ["output"]))
        info = onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, None)
        model.graph.value_info.append(info)
        assert optimized_bindings(model, tmp_path) == {"engine_0": (("input_1",), ("output",))}

    def test_onnx_runtime_reads_it(self, tmp_path: Path) -> None:
        """Up to where the execution provider is needed, which it names."""
        model = write_onnx(DATA / "tiny.windows.ep", tmp_path)
        with pytest.raises(Exception, match=r"NvTensorRTRTXExecutionProvider"):
            onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])


class TestRefusals:
    """What cannot become a model."""

    def test_another_backend(self, tmp_path: Path) -> None:
        """Engines of classic TensorRT have another provider, which takes none that were compiled before."""
        shutil.copy(DATA / "tiny.windows.ep", tmp_path)
        manifest = read_artifact(DATA / "tiny.windows.ep").manifest
        backend = dataclasses.replace(manifest.backend, name="tensorrt")
        write_manifest(tmp_path / "tiny.windows.json", dataclasses.replace(manifest, backend=backend))
        with pytest.raises(ConfigurationError, match='export with backend="tensorrt_rtx"'):
            write_onnx(tmp_path / "tiny.windows.ep")

    def test_values_that_cannot_have_one_name(self) -> None:
        """Engines of before: two give another value under one name, or take another under one."""
        artifact = read_artifact(DATA / "tiny.windows.ep")
        (engine,) = artifact.manifest.engines
        engines = engine, dataclasses.replace(engine, name="second")
        second = dataclasses.replace(engine, name="second", outputs=("output1",))
        two = dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, engines=engines))
        given, between = Origin("input", 0), Origin("engine", 0, 0)
        calls = EngineCall(0, (given,), ("float32",)), EngineCall(1, (given,), ("float32",))
        outline = Outline(calls, (Origin("engine", 1, 0),), ())
        with pytest.raises(ConfigurationError, match=r"two values enter or leave engines as 'output0'.*export it"):
            writing._Writer(two, outline, ["a", "b"], False, {}).model("m")
        two = dataclasses.replace(two, manifest=dataclasses.replace(two.manifest, engines=(engine, second)))
        calls = calls[0], EngineCall(1, (between,), ("float32",))
        outline = Outline(calls, (Origin("engine", 1, 0),), ())
        with pytest.raises(ConfigurationError, match="two values enter or leave engines as 'input_1'"):
            writing._Writer(two, outline, ["a", "b"], False, {}).model("m")

    def test_too_large_to_embed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two gigabytes are the end of a model; beside it an engine may be larger."""
        monkeypatch.setattr(writing, "_LARGEST_EMBEDDED", 1000)
        with pytest.raises(ConfigurationError, match="an ONNX model ends at 2 GB"):
            write_onnx(DATA / "tiny.windows.ep", tmp_path, embed=True)

    def test_damaged(self, tmp_path: Path) -> None:
        """The hash is checked before anything is written."""
        for name in ("tiny.windows.ep", "tiny.windows.json"):
            shutil.copy(DATA / name, tmp_path)
        data = bytearray((tmp_path / "tiny.windows.ep").read_bytes())
        data[5000] ^= 1
        (tmp_path / "tiny.windows.ep").write_bytes(data)
        with pytest.raises(ArtifactError):
            write_onnx(tmp_path / "tiny.windows.ep")
        assert not (tmp_path / "tiny.windows.onnx").exists()

    def test_without_onnx(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The extra that brings it is named."""
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(EnvironmentMismatchError, match=r"lightning-trt-windows\[onnx\]"):
            write_onnx(DATA / "tiny.windows.ep", tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what it wrote."""
    assert main(["onnx", str(DATA / "tiny.windows.ep"), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "wrote tiny.windows.onnx, tiny.windows.engine\n"
    assert main(["onnx", str(DATA / "tiny.windows.ep"), "--out", str(tmp_path), "--embed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "tiny.windows.onnx", "engines": []}
