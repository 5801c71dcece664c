"""A hostile archive with a matching manifest: loading it runs nothing that stands in it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stand_in import StandIn, export_for_test
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.artifact.artifact import read_artifact, write_manifest
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.manifest import PayloadLocation
from lightning_trt_windows.errors import ArtifactError
from lightning_trt_windows.runtime.loaded import LoadedModule
from lightning_trt_windows.runtime.program_graph import DTYPES

GRAPH = "archive/models/model.json"
Archive = dict[str, Any]
"""Members by name; the graph as JSON, with ``"@payload@"`` where the engine is."""


class Fallback(nn.Module):
    """An engine, an operator with weights in PyTorch, and an output in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return {"y": self.conv(x.relu() * 2)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """An honest artifact."""
    path = tmp_path_factory.mktemp("artifact") / "m.windows.ep"
    options = {"torch_executed_ops": {torch.ops.aten.convolution.default}}
    inputs = {"x": InputSpec((DimRange(1, 2, 4), 8, 16))}
    return export_for_test(Fallback().eval(), inputs, path, compile_options=options)


class Canary:
    """Writes a file when it is unpickled, or wherever else code of the archive runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")

    @property
    def code(self) -> str:
        """An expression that does the same."""
        return f"__import__('builtins').open({str(self.path)!r}, 'w')"


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """Alive as long as nothing ran."""
    return Canary(tmp_path / "something-ran")


def forged(good: StandIn, folder: Path, change: Callable[[Archive], None]) -> StandIn:
    """``good`` with changed members, and a manifest to match."""
    manifest = good.artifact.manifest
    (engine,) = manifest.engines
    begin, end = engine.location.offset, engine.location.offset + engine.location.length
    with zipfile.ZipFile(good.artifact.path) as archive:
        members: Archive = {name: archive.read(name) for name in archive.namelist()}
    text = members[GRAPH]
    payload = text[begin:end]
    members[GRAPH] = json.loads(text[:begin] + b"@payload@" + text[end:])
    change(members)
    graph = json.dumps(members[GRAPH]).encode()
    offset = graph.index(b"@payload@")
    members[GRAPH] = graph.replace(b"@payload@", payload)
    path = folder / "m.windows.ep"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    location = PayloadLocation(member=GRAPH, offset=offset, length=len(payload))
    ep = dataclasses.replace(manifest.ep, size=path.stat().st_size, sha256=sha256_of(path))
    engines = (dataclasses.replace(engine, location=location),)
    write_manifest(folder / "m.windows.json", dataclasses.replace(manifest, ep=ep, engines=engines))
    return StandIn(read_artifact(path), good.partitions)


def nodes(members: Archive) -> list[dict[str, Any]]:
    """The calls of the graph."""
    found: list[dict[str, Any]] = members[GRAPH]["graph_module"]["graph"]["nodes"]
    return found


def convolution(members: Archive) -> dict[str, Any]:
    """The call that stays in PyTorch."""
    return next(node for node in nodes(members) if "convolution" in node["target"])


def config(members: Archive, folder: str, kind: str) -> dict[str, Any]:
    """Records of weights or constants, to be changed and put back."""
    loaded: dict[str, Any] = json.loads(members[f"archive/data/{folder}/model_{kind}_config.json"])
    return loaded


def signature(members: Archive) -> dict[str, Any]:
    """Descriptions of arguments and outputs."""
    found: dict[str, Any] = members[GRAPH]["graph_module"]["module_call_graph"][0]["signature"]
    return found


def on_cpu(members: Archive) -> None:
    """Relabel devices: the stock loader takes those in the file, and there may be no GPU here."""
    gpu, cpu = '{"type": "cuda", "index": 0}', '{"type": "cpu", "index": null}'
    members[GRAPH] = json.loads(json.dumps(members[GRAPH]).replace(gpu, cpu))
    weights = config(members, "weights", "weights")
    members["archive/data/weights/model_weights_config.json"] = json.dumps(weights).replace(gpu, cpu)


def called(target: str, argument: str) -> Callable[[Archive], None]:
    """A change: a call of ``target`` before all others."""

    def change(members: Archive) -> None:
        argument_record = {"name": "x", "arg": {"as_string": argument}, "kind": 1}
        call = {"target": target, "inputs": [argument_record], "outputs": [{"as_none": True}], "metadata": {}}
        nodes(members).insert(0, call)

    return change


def test_an_honest_copy_loads(good: StandIn, tmp_path: Path) -> None:
    """So that what follows is refused for its content and not for the way it was forged."""
    loaded = forged(good, tmp_path, lambda members: None).load()
    assert loaded(torch.ones(2, 8, 16))["y"].shape == (2, 8, 16)


class TestWhatIsNotRead:
    """Parts that torch.export.load unpickles or evaluates, and that running needs nothing of."""

    def loads_and_runs(self, good: StandIn, tmp_path: Path, canary: Canary, change: Callable[[Archive], None]) -> None:
        """The module comes out right, and nothing ran."""
        loaded = forged(good, tmp_path, change).load()
        x = torch.randn(2, 8, 16)
        torch.testing.assert_close(loaded(x)["y"], good.load()(x)["y"])
        assert not canary.path.exists()

    def test_sample_inputs(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """A pickle."""

        def change(members: Archive) -> None:
            members["archive/data/sample_inputs/model.pt"] = pickle.dumps(canary)

        self.loads_and_runs(good, tmp_path, canary, change)

    def test_sizes_and_guards(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """Python expressions."""

        def change(members: Archive) -> None:
            members[GRAPH]["guards_code"] = [canary.code]
            for record in members[GRAPH]["graph_module"]["graph"]["tensor_values"].values():
                record["sizes"][0] = {"as_expr": {"expr_str": canary.code, "hint": {"as_int": 2}}}

        self.loads_and_runs(good, tmp_path, canary, change)

    def test_names_of_values(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """A graph's code is made of names; not of those in the file."""

        def change(members: Archive) -> None:
            program = json.dumps(members[GRAPH]["graph_module"])
            name = json.dumps({"name": "x"})
            assert name in program
            evil = json.dumps({"name": f"x={canary.code}, y"})
            members[GRAPH]["graph_module"] = json.loads(program.replace(name, evil))

        self.loads_and_runs(good, tmp_path, canary, change)

    @pytest.mark.linux("imports Torch-TensorRT")
    def test_the_stock_loader_does_run_it(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """What all of this is for: torch.export.load evaluates the size."""

        def change(members: Archive) -> None:
            on_cpu(members)
            for record in members[GRAPH]["graph_module"]["graph"]["tensor_values"].values():
                record["sizes"][0] = {"as_expr": {"expr_str": canary.code, "hint": {"as_int": 2}}}

        from lightning_trt_windows._compat.torch_tensorrt import upstream

        upstream()
        with pytest.raises(Exception):  # noqa: B017 -- whatever it makes of a file object as a size
            torch.export.load(forged(good, tmp_path, change).artifact.path)
        assert canary.path.exists()


class TestWhatIsRefused:
    """Parts that have no place in a program of engines and tensors."""

    def is_refused(self, good: StandIn, tmp_path: Path, canary: Canary, change: Any, message: str) -> None:
        """With a reason, and nothing ran."""
        with pytest.raises(ArtifactError, match=message):
            forged(good, tmp_path, change).load()
        assert not canary.path.exists()

    @pytest.mark.parametrize("name", ["data/weights/model.pt", "data/constants/model.pt", "extra/notes.txt", "x.py"])
    def test_members(self, good: StandIn, tmp_path: Path, canary: Canary, name: str) -> None:
        """Among them those in which older formats keep pickles."""

        def change(members: Archive) -> None:
            members[f"archive/{name}"] = pickle.dumps(canary)

        self.is_refused(good, tmp_path, canary, change, f"has a member '{name}', which no artifact needs")

    def test_pickled_weights(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """A weight may say that it is a pickle."""

        def change(members: Archive) -> None:
            weights = config(members, "weights", "weights")
            record = next(iter(weights["config"].values()))
            record["use_pickle"] = True
            members[f"archive/data/weights/{record['path_name']}"] = pickle.dumps(canary)
            members["archive/data/weights/model_weights_config.json"] = json.dumps(weights)

        self.is_refused(good, tmp_path, canary, change, "is a pickle or another object")

    @pytest.mark.parametrize("prefix", ["custom_obj_", "opaque_obj_", "../weights/tensor_"])
    def test_pickled_constants(self, good: StandIn, tmp_path: Path, canary: Canary, prefix: str) -> None:
        """Objects that are no tensors."""

        def change(members: Archive) -> None:
            record = {"path_name": f"{prefix}0", "is_param": False, "use_pickle": False, "tensor_meta": None}
            members["archive/data/constants/model_constants_config.json"] = json.dumps({"config": {"c": record}})

        self.is_refused(good, tmp_path, canary, change, "is a pickle or another object")

    @pytest.mark.parametrize(
        "target",
        [
            "torch.os.system",
            "torch.load",
            "torch.hub.load",
            "torch.ops.load_library",
            "torch.ops.load_library.__func__.__globals__",
            "torch.ops.aten.from_file.default",
            "torch.ops.higher_order.cond",
            "_operator.methodcaller",
            "_operator.attrgetter",
            "math.__loader__",
            "builtins.exec",
            "#extension:op",
            None,
        ],
    )
    def test_calls(self, good: StandIn, tmp_path: Path, canary: Canary, target: str) -> None:
        """Everything but registered operators and arithmetic."""
        self.is_refused(good, tmp_path, canary, called(target, f"touch {canary.path}"), "it calls")

    def test_operators_that_are_not_here(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """Custom operators: the reader is told what to do."""
        message = "is not registered here; if that is a custom operator, import the package"
        self.is_refused(good, tmp_path, canary, called("torch.ops.mine.op.default", ""), message)

    @pytest.mark.parametrize("kind", ["as_custom_obj", "as_operator", "as_graph"])
    def test_kinds_of_arguments(self, good: StandIn, tmp_path: Path, canary: Canary, kind: str) -> None:
        """Objects, functions and graphs as arguments."""

        def change(members: Archive) -> None:
            convolution(members)["inputs"][0]["arg"] = {kind: {"name": "x"}}

        self.is_refused(good, tmp_path, canary, change, f"argument of the kind {kind}, which is not a plain value")

    def test_trees_that_import(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """Keys of an Enum name a module."""

        def change(members: Archive) -> None:
            keys = json.dumps([{"__enum__": True, "fqn": "antigravity:geohash", "name": "x"}])
            tree = {"type": "builtins.dict", "context": keys, "children_spec": [_LEAF]}
            signature(members)["out_spec"] = json.dumps([1, tree])

        self.is_refused(good, tmp_path, canary, change, "keys are of the class antigravity:geohash")

    def test_trees_that_call(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """A defaultdict names a function."""

        def change(members: Archive) -> None:
            context = {"default_factory_module": "os", "default_factory_name": "abort", "dict_context": ["y"]}
            tree = {"type": "collections.defaultdict", "context": context, "children_spec": [_LEAF]}
            signature(members)["out_spec"] = json.dumps([1, tree])

        self.is_refused(good, tmp_path, canary, change, r"a defaultdict calls os\.abort")

    def test_weights_beyond_their_memory(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """Strides that reach past the end of what is in the file."""

        def change(members: Archive) -> None:
            weights = config(members, "weights", "weights")
            next(iter(weights["config"].values()))["tensor_meta"]["storage_offset"] = {"as_int": 10**6}
            members["archive/data/weights/model_weights_config.json"] = json.dumps(weights)

        self.is_refused(good, tmp_path, canary, change, "out of bounds|not one of engines and tensors")

    def test_engines_that_are_not_listed(self, good: StandIn, tmp_path: Path, canary: Canary) -> None:
        """A second call of the engine; none at all."""

        def twice(members: Archive) -> None:
            engine = next(node for node in nodes(members) if "no_op_placeholder" in node["target"])
            copy = json.loads(json.dumps(engine))
            for argument in copy["inputs"]:
                if argument["arg"].get("as_string") == "@payload@":
                    argument["arg"]["as_string"] = "AAAA"
            nodes(members).append(copy)

        self.is_refused(good, tmp_path, canary, twice, "calls an engine that the manifest does not list")

    @pytest.mark.parametrize("key", ["graph_module", "schema_version"])
    def test_damage(self, good: StandIn, tmp_path: Path, canary: Canary, key: str) -> None:
        """JSON of another shape."""

        def change(members: Archive) -> None:
            payload_keeper = {"keep": members[GRAPH].pop(key)}
            members[GRAPH]["other"] = payload_keeper

        self.is_refused(good, tmp_path, canary, change, "its program is not one of engines and tensors: KeyError")


_LEAF = {"type": None, "context": None, "children_spec": []}


def test_numbers_of_dtypes_are_upstream_s() -> None:
    """The schema's enumeration, which is not imported to load an artifact."""
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    theirs = {int(number): dtype for number, dtype in _SERIALIZE_TO_TORCH_DTYPE.items()}
    known = {number: dtype for number, dtype in DTYPES.items() if number in theirs}
    assert known == {number: dtype for number, dtype in theirs.items() if number in DTYPES}
    # torch 2.11 has no numbers for the large unsigned types yet
    assert len(known) == len(DTYPES) or torch.__version__.startswith("2.11")


@pytest.mark.linux("imports Torch-TensorRT")
def test_the_graph_is_upstream_s(good: StandIn, tmp_path: Path) -> None:
    """The same calls in the same order as ``torch.export.load`` finds in the file."""
    from lightning_trt_windows._compat.torch_tensorrt import upstream

    upstream()
    loaded: LoadedModule = good.load()
    ours = [str(node.target) for node in loaded._program.graph.nodes if node.op == "call_function"]
    program = torch.export.load(forged(good, tmp_path, on_cpu).artifact.path)
    theirs = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    engines = [target for target in theirs if "no_op_placeholder" in target]
    assert [target for target in ours if "getitem" not in target] == [
        target for target in theirs if "getitem" not in target and target not in engines
    ]
    for number, name in enumerate(program.graph_signature.parameters):
        assert program.state_dict[name].cpu().equal(getattr(loaded._program, f"weight_{number}"))
