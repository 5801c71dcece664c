"""``io_precision="engine"``: artifacts whose inputs and outputs have the type that their engines compute in."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stand_in import StandIn, export_for_test
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module, verify, verify_metric
from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import build, prepare
from lightning_trt_windows.settings import ExportSettings

BATCH = DimRange(1, 4, 8, name="batch")
INPUTS = {
    "x": InputSpec((BATCH, 3, 16, 16)),
    "more": {"ids": InputSpec((BATCH,), "int64"), "scale": InputSpec((BATCH, 1))},
}
DTYPES = {"16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32}


class Everything(nn.Module):
    """Inputs of several types, nested; outputs that are computed, chosen, passed through, twice the same, and none."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.linear = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.register_buffer("mean", torch.rand(4))

    def forward(self, x: Tensor, more: dict[str, Tensor]) -> Any:
        y = self.linear(self.norm(self.convolution(x)).relu().mean((2, 3))) * more["scale"]
        return {"y": y.softmax(-1), "ids": more["ids"] + 1, "x": x, "again": x, "none": None, "sum": y - self.mean}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """With the same weights each time."""
    torch.manual_seed(0)
    return Everything().eval()


@pytest.fixture(scope="module")
def half(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Its artifact that takes and gives float16, with goldens."""
    path = tmp_path_factory.mktemp("io") / "m.windows.ep"
    return export_for_test(module, INPUTS, path, precision="16", io_precision="engine", golden=True)


def arguments(batch: int, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """A call; what it holds is there in every type."""
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, 3, 16, 16, generator=generator).bfloat16().to(dtype)
    return x, {"ids": torch.arange(batch), "scale": torch.full((batch, 1), 0.5, dtype=dtype)}


def check(stand_in: StandIn, module: nn.Module, dtype: torch.dtype, limit: float) -> None:
    """Eager's values in ``dtype``, at several batches."""
    for batch in (1, 5, 8):
        with torch.no_grad():
            wanted = module(*arguments(batch, next(module.parameters()).dtype))
        found = stand_in.load()(*arguments(batch, dtype))
        assert list(found) == list(wanted)
        assert torch.equal(found["ids"], wanted["ids"]) and found["none"] is None
        for name in ("y", "x", "again", "sum"):
            assert (found[name].dtype, found[name].shape) == (dtype, wanted[name].shape)
            assert float((found[name].double() - wanted[name].double()).norm() / wanted[name].double().norm()) < limit


def test_artifacts_take_and_give_the_type_they_compute_in(half: StandIn, module: nn.Module) -> None:
    """Floating-point tensors at every depth, in the manifest and in fact; integers stay what they are."""
    manifest = half.artifact.manifest
    types = {r.name: r.dtype for r in (*manifest.inputs, *manifest.outputs)}
    assert {name for name, dtype in types.items() if dtype == "float16"} == {
        "x", "more.scale", "output.y", "output.x", "output.again", "output.sum",
    }  # fmt: skip
    assert types["more.ids"] == types["output.ids"] == "int64"
    assert manifest.backend.options["io_precision"] == "engine"
    assert manifest.fallback_ops == () and len(manifest.engines) == 1
    check(half, module, torch.float16, 2e-3)


def test_what_a_matrix_product_reads_is_not_widened_on_the_way(half: StandIn) -> None:
    """The first convolution takes the input as it came in."""
    (graph,) = half.partitions.values()
    (convolution,) = [node for node in graph.graph.nodes if "convolution" in str(node.target)]
    assert convolution.args[0].op == "placeholder"


def test_the_module_s_own_types_are_refused(half: StandIn) -> None:
    """The message says what to convert to."""
    with pytest.raises(ConfigurationError, match=r"x must be float16, got float32; convert it with \.to"):
        half.load()(*arguments(2, torch.float32))


def test_verification_follows(half: StandIn, module: nn.Module) -> None:
    """Goldens are of the artifact's types; a module and a metric are given what they take."""
    found = verify(half.artifact.path, loaded=half.load())
    assert found.passed and {c.dtype for call in found.calls for c in call.outputs} == {"float16", "int64"}
    assert verify(half.artifact.path, reference=module, loaded=half.load()).passed
    given = arguments(3, torch.float32)
    assert verify(half.artifact.path, inputs=given, reference=module, loaded=half.load()).passed
    assert not verify(half.artifact.path, reference=Everything(), loaded=half.load()).passed

    def total(model: Any, batches: Any) -> float:
        return sum(float(model(*batch)["sum"].double().abs().mean()) for batch in batches)

    outcome = verify_metric(half.load(), module, [given], total, max_drop=1e-2)
    assert outcome.artifact == pytest.approx(outcome.module, rel=1e-2)


@pytest.mark.parametrize(("precision", "weights"), [("bf16", "float32"), ("32", "float64"), ("32", "float16")])
def test_other_types(precision: Any, weights: str, tmp_path: Path) -> None:
    """Also of modules in float64, whose engines then need no casts in PyTorch, and in half precision."""
    torch.manual_seed(0)
    dtype = getattr(torch, weights)
    module = Everything().eval().to(dtype)
    inputs = {
        "x": InputSpec((BATCH, 3, 16, 16), weights),
        "more": {**INPUTS["more"], "scale": InputSpec((BATCH, 1), weights)},
    }  # type: ignore[dict-item]
    stand_in = export_for_test(module, inputs, tmp_path / "m.windows.ep", precision=precision, io_precision="engine")
    assert stand_in.artifact.manifest.fallback_ops == ()
    check(stand_in, module, DTYPES[precision], {"float32": 2e-2, "float64": 1e-5, "float16": 2e-3}[weights])


def test_a_build_elsewhere_gives_the_same(module: nn.Module, half: StandIn, tmp_path: Path) -> None:
    """The casts are in the program that travels, and another request than that of the module's own types."""
    settings = ExportSettings(precision="16", io_precision="engine", golden=True)
    job = prepare(
        module,
        discover(module, inputs=INPUTS),
        ArtifactPaths.of(tmp_path / "m.windows.ep"),
        ExportOptions(settings=settings),
    )
    artifact = build(pickle.loads(pickle.dumps(job)))
    assert artifact.manifest.inputs == half.artifact.manifest.inputs
    assert artifact.manifest.golden.sha256 == half.artifact.manifest.golden.sha256
    own = prepare(
        module,
        discover(module, inputs=INPUTS),
        job.paths,
        ExportOptions(settings=ExportSettings(precision="16", golden=True)),
    )
    assert job.fingerprint == half.artifact.manifest.backend.options["request"] != own.fingerprint


def test_an_input_that_forward_writes_to(tmp_path: Path) -> None:
    """It is a copy; the caller's tensor stays as it was."""

    class Writing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    torch.manual_seed(0)
    module, x = Writing(8, 4), torch.randn(2, 8).half()
    spec = {"x": InputSpec((BATCH, 8))}
    stand_in = export_for_test(module, spec, tmp_path / "m.windows.ep", precision="16", io_precision="engine")
    before = x.clone()
    found = stand_in.load()(x)
    assert torch.equal(x, before)
    with torch.no_grad():
        assert torch.allclose(found.float(), module(x.float()), atol=5e-3)


def test_values_beyond_the_type_are_refused(tmp_path: Path) -> None:
    """Where the InputSpec says so; bfloat16 has them."""
    inputs = {"input": InputSpec((BATCH, 8), values=(-1e5, 10.0))}
    with pytest.raises(ConfigurationError, match=r"input has values up to 100000, float16 ends at 65504"):
        export_module(nn.Linear(8, 2), inputs, tmp_path / "m.windows.ep", precision="16", io_precision="engine")
    export_module(nn.Linear(8, 2), inputs, tmp_path / "m.windows.ep", precision="bf16", io_precision="engine")
