"""Programs with operators in PyTorch as ONNX models, run by ONNX Runtime with partitions in the place of engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.onnx_models import optimized_bindings, run_with_partitions
from support.outlines import BATCH, Several
from support.paths import DATA
from support.stand_in import StandIn, export_for_test
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module, write_onnx
from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.outline import ENGINE, Origin, Outline, read_document
from lightning_trt_windows.errors import ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.onnx import operators
from lightning_trt_windows.onnx.model import _Writer
from lightning_trt_windows.onnx.ordering import in_order
from lightning_trt_windows.onnx.stages import stages_of


class Mixed(nn.Module):
    """Two engines and float64 between them, which stays in PyTorch: with a weight, sizes that vary, int64 and bool."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.first(x))
        precise = hidden.double() * self.scale.double() / x.shape[1]
        chosen = precise.cumsum(1).float().masked_fill(mask[..., None], 0.5)
        counted = (ids * 2).double().floor().long() + ids.shape[1]
        positive = hidden.double() > 0.1
        return {
            "scores": self.second(chosen),
            "precise": precise.float(),
            "again": precise.float(),
            "counted": counted + 1,
            "positive": positive,
            "inverse": ~positive,
            "x": x,
        }

    @staticmethod
    def inputs() -> dict[str, InputSpec]:
        """Ranges of the arguments."""
        length = DimRange(2, 5, 9, name="length")
        return {
            "x": InputSpec((BATCH, length, 4)),
            "ids": InputSpec((BATCH, length), dtype="int64"),
            "mask": InputSpec((BATCH, length), dtype="bool"),
        }

    @staticmethod
    def example(batch: int, length: int) -> dict[str, Tensor]:
        """Arguments."""
        torch.manual_seed(batch)
        return {
            "x": torch.randn(batch, length, 4),
            "ids": torch.randint(0, 9, (batch, length)),
            "mask": torch.rand(batch, length) > 0.5,
        }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mixed, StandIn]:
    """A module, and its artifact."""
    torch.manual_seed(0)
    module = Mixed().eval()
    return module, export_for_test(module, module.inputs(), tmp_path_factory.mktemp("mixed") / "mixed.windows.ep")


def computed(model: Path, stand_in: StandIn, given: dict[str, Tensor]) -> dict[str, Any]:
    """Outputs by name."""
    return run_with_partitions(model, stand_in, {name: value.numpy() for name, value in given.items()})


class TestOperators:
    """Between engines, and beside them."""

    @pytest.mark.parametrize("size", [(1, 2), (4, 5), (8, 9), (3, 7)])
    def test_outputs_are_those_of_the_module(
        self, mixed: tuple[Mixed, StandIn], tmp_path: Path, size: tuple[int, int]
    ) -> None:
        """At the borders of the ranges and between them: values, types and shapes."""
        module, stand_in = mixed
        assert len(stand_in.artifact.manifest.engines) > 1
        given = module.example(*size)
        found = computed(write_onnx(stand_in.artifact, tmp_path).path, stand_in, given)
        expected = module(**given)
        assert list(found) == [f"output.{name}" for name in expected]
        for name, value in expected.items():
            wanted = value.detach().numpy()
            assert (found[f"output.{name}"].dtype, found[f"output.{name}"].shape) == (wanted.dtype, wanted.shape)
            np.testing.assert_allclose(found[f"output.{name}"], wanted, rtol=1e-5, atol=1e-6)

    def test_names_and_axes_are_those_of_the_manifest(self, mixed: tuple[Mixed, StandIn], tmp_path: Path) -> None:
        """As in a model of engines only; nothing in it says where on which machine it was made."""
        artifact = mixed[1].artifact
        path = write_onnx(artifact, tmp_path).path
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [i.name for i in model.graph.input] == ["x", "ids", "mask"]
        shape = model.graph.input[0].type.tensor_type.shape
        assert [d.dim_param or d.dim_value for d in shape.dim] == ["batch", "length", 4]
        properties = {item.key: item.value for item in model.metadata_props}
        assert properties["ids.max"] == "8,9"
        assert str(Path(__file__).parent).encode() not in path.read_bytes()
        assert not [node for node in model.graph.node if node.metadata_props or node.doc_string]

    def test_onnx_runtime_leaves_the_bindings_their_names(self, mixed: tuple[Mixed, StandIn], tmp_path: Path) -> None:
        """Its optimizer removes and merges operators; the provider finds bindings by their names."""
        engines = mixed[1].artifact.manifest.engines
        model = onnx.load(write_onnx(mixed[1].artifact, tmp_path).path)
        expected = {f"engine_{number}": (engine.inputs, engine.outputs) for number, engine in enumerate(engines)}
        assert optimized_bindings(model, tmp_path) == expected

    def test_operators_that_change_nothing(self, tmp_path: Path) -> None:
        """ONNX Runtime removes them: engines then must not be asked for other names."""
        torch.manual_seed(0)

        class Nothing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x: Tensor) -> tuple[Tensor, ...]:
                hidden = torch.relu(self.first(x))
                return self.second(hidden.repeat(1, 1)), hidden.repeat(1, 1)

        options = {"torch_executed_ops": ["torch.ops.aten.repeat.default"]}
        stand_in = export_for_test(
            Nothing().eval(), {"x": InputSpec((BATCH, 4))}, tmp_path / "nothing.windows.ep", compile_options=options
        )
        engines = stand_in.artifact.manifest.engines
        assert len(engines) == 2, "there is an operator between"
        path = write_onnx(stand_in.artifact).path
        expected = {f"engine_{number}": (engine.inputs, engine.outputs) for number, engine in enumerate(engines)}
        assert optimized_bindings(onnx.load(path), tmp_path) == expected

    @pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "int64", "bool"])
    @pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3), (2, 3, 2)])
    def test_copies_are_what_was_copied(self, dtype: str, shape: tuple[int, ...]) -> None:
        """Of every type and rank, with no elements as well."""
        value = np.array(np.random.default_rng(0).random(shape) * 9).astype(dtype)
        artifact = read_artifact(DATA / "tiny.windows.ep")
        writer = _Writer(artifact, Outline((), (), ()), [], False, {})
        writer._values[Origin("input", 0)] = "given"
        writer._copy("given", "copied")
        number = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        infos = [onnx.helper.make_tensor_value_info(name, number, None) for name in ("given", "copied")]
        graph = onnx.helper.make_graph(
            in_order(writer._nodes), "copy", infos[:1], infos[1:], initializer=list(writer._initializers.values())
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"given": value})
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found, value)


class Pyramid(nn.Module):
    """What an engine needs has a size that it also gives; and one operator's value is needed before and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(2, 3, 3, 4, 1), nn.Conv2d(2, 3, 2, 2)
        self.merge = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.low(x).relu(), self.high(x).relu()
        shift = low.cumsum(2).mean((2, 3), keepdim=True)
        up = nn.functional.interpolate(low, size=high.shape[-2:], mode="nearest") + shift
        merged = self.merge(up) + high
        return nn.functional.interpolate(merged * 2, size=x.shape[-2:], mode="nearest") * shift


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pyramid, StandIn]:
    """A module, and its artifact."""
    torch.manual_seed(0)
    module = Pyramid().eval()
    size = DimRange(8, 16, 32, name="height", multiple_of=2)
    left = ["torch.ops.aten.upsample_nearest2d.vec", "torch.ops.aten.cumsum.default"]
    options = {"torch_executed_ops": left}
    inputs = {"x": InputSpec((BATCH, 2, size, 16))}
    path = tmp_path_factory.mktemp("pyramid") / "pyramid.windows.ep"
    return module, export_for_test(module, inputs, path, compile_options=options)


class TestStages:
    """Operators before an engine and behind it are translated one after the other."""

    def test_a_size_is_not_taken_from_the_engine_that_waits_for_it(
        self, pyramid: tuple[Pyramid, StandIn], tmp_path: Path
    ) -> None:
        """PyTorch's exporter takes it from any input that has it."""
        module, stand_in = pyramid
        assert len(stand_in.artifact.manifest.engines) > 1
        path = write_onnx(stand_in.artifact, tmp_path).path
        for batch, height in ((1, 8), (3, 16), (8, 32)):
            x = torch.randn(batch, 2, height, 16)
            (found,) = computed(path, stand_in, {"x": x}).values()
            np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)

    def test_tensors_are_computed_once(self, pyramid: tuple[Pyramid, StandIn], tmp_path: Path) -> None:
        """Also where later stages need them; numbers, as sizes, are computed anew."""
        nodes = onnx.load(write_onnx(pyramid[1].artifact, tmp_path).path).graph.node
        assert [node.op_type for node in nodes].count("CumSum") == 1
        assert len({name for node in nodes for name in node.output}) == sum(len(node.output) for node in nodes)


class TestRefusals:
    """What cannot become a model, and what a file must not hold."""

    def test_an_operator_without_a_form_in_onnx(self, tmp_path: Path) -> None:
        """It is named, with the module; nothing is left behind."""
        stand_in = export_for_test(Several(), Several.inputs(), tmp_path / "several.windows.ep")
        expected = r"aten\.special_airy_ai\.default runs in PyTorch.*cannot translate it into ONNX"
        with pytest.raises(ConfigurationError, match=expected):
            write_onnx(stand_in.artifact)
        assert not (tmp_path / "several.windows.onnx").exists()

    def test_float64_at_the_border(self, tmp_path: Path) -> None:
        """The execution provider refuses models with such outputs; inside it is allowed."""

        class Precise(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                return self.linear(x).double() * 2

        stand_in = export_for_test(Precise().eval(), {"x": InputSpec((2, 4))}, tmp_path / "precise.windows.ep")
        with pytest.raises(ConfigurationError, match=r"output has the type float64.*float64 may be inside"):
            write_onnx(stand_in.artifact)

    def test_bfloat16(self, tmp_path: Path) -> None:
        """ONNX Runtime would not load the model."""

        class Half(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                return self.linear(x).repeat(2, 1)

        options = {"torch_executed_ops": ["torch.ops.aten.repeat.default"]}
        settings: dict[str, Any] = {"precision": "bf16", "io_precision": "engine", "check": False}
        module = Half().eval()
        inputs = {"x": InputSpec((2, 4))}
        stand_in = export_for_test(module, inputs, tmp_path / "h.windows.ep", compile_options=options, **settings)
        with pytest.raises(
            ConfigurationError, match=r"bfloat16 \(Expand, Tile\), and ONNX Runtime's CPU provider does not"
        ):
            write_onnx(stand_in.artifact)

    def test_the_line_of_the_model_is_named_at_the_export(self, tmp_path: Path) -> None:
        """Where the artifact was asked for with a model: the file does not have the line."""
        path = tmp_path / "several.windows.ep"
        with pytest.warns(UserWarning, match=r"airy_ai\.default \(outlines\.py:\d+: return hidden, x") as caught:
            artifact = export_module(Several().eval(), Several.inputs(), path, formats=("ep", "onnx"))
        assert "There is no ONNX model beside it" in str(caught[0].message)
        assert not artifact.manifest.onnx
        assert b"return hidden, x" not in path.read_bytes()

    @pytest.mark.parametrize(
        ("package", "expected"), [("torch", "needs PyTorch"), ("onnxscript", r"rt-windows\[onnx\]")]
    )
    def test_without(
        self,
        mixed: tuple[Mixed, StandIn],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        package: str,
        expected: str,
    ) -> None:
        """A machine without PyTorch can translate engines only, and says so."""
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(EnvironmentMismatchError, match=expected):
            write_onnx(mixed[1].artifact, tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("place", "value", "expected"),
        [
            (("nodes", 0, "target"), "torch.os.system", "neither an operator nor arithmetic"),
            (("tensor_values", "expr_str"), "__import__('os').getcwd()", "not one of symbols and numbers"),
            (("tensor_values", "expr_str"), "().__class__", "not one of symbols and numbers"),
        ],
    )
    def test_what_pytorch_would_evaluate(
        self, mixed: tuple[Mixed, StandIn], place: tuple[Any, ...], value: str, expected: str
    ) -> None:
        """Its loader calls what a file names and evaluates sizes; nothing else than operators and sizes gets there."""
        artifact = mixed[1].artifact
        with EpFile(artifact.path) as file:
            document = read_document(artifact, file)
        graph = document["graph_module"]["graph"]
        wanted = next(node for node in graph["nodes"] if node["target"] != ENGINE and "as_tensor" in node["outputs"][0])
        if place[0] == "nodes":
            wanted["target"] = value
        else:
            sizes = (size for entry in graph["tensor_values"].values() for size in entry["sizes"])
            next(size for size in sizes if "as_expr" in size)["as_expr"]["expr_str"] = value
        with pytest.raises(ValueError, match=expected):
            (stage,) = stages_of(graph["nodes"], [wanted["outputs"][0]["as_tensor"]["name"]])
            operators._only(document, stage)
            operators._check_targets(stage.nodes)
