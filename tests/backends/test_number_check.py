"""The check of every export: what is right passes, what is converted wrongly stays in PyTorch, the rest is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluating import networks_kept
from support.simulation import partitions_kept
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module, inspect, verify
from lightning_trt_windows.backends import number_check
from lightning_trt_windows.backends.number_check import NumberCheck
from lightning_trt_windows.backends.rewrites import OWN_DECOMPOSITIONS
from lightning_trt_windows.errors import CompileError, ConfigurationError
from lightning_trt_windows.export import written_check
from lightning_trt_windows.settings import ExportSettings

BATCH = DimRange(1, 4, 8)


class Classifier(nn.Module):
    """A convolution, a normalisation and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


IMAGES = {"x": InputSpec((BATCH, 3, 8, 8))}


class Pyramid(nn.Module):
    """Adaptive pooling whose input is no multiple of its output, which Torch-TensorRT 2.14 converts wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(7)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.convolution(x).relu()) * 2


def test_right_numbers_pass(tmp_path: Path) -> None:
    """At the smallest, usual and largest size and between; the manifest and ``inspect`` say so."""
    artifact = export_module(Classifier().eval(), IMAGES, tmp_path / "m.windows.ep")
    check = artifact.manifest.check
    assert check is not None
    assert [sizes.name for sizes in check.compared] == ["min", "opt", "between", "max"]
    assert all(max(sizes.lowered, sizes.engines) < 1e-5 for sizes in check.compared)
    assert (check.not_checked, check.left_to_pytorch) == ((), ())
    assert "compared with the module at the sizes min, opt, between, max" in str(inspect(artifact.path))


def test_verify_without_a_gpu_shows_what_was_compared(tmp_path: Path) -> None:
    """In place of 'not checked'."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU on this machine")
    artifact = export_module(Classifier().eval(), IMAGES, tmp_path / "m.windows.ep")
    report = str(verify(artifact.path))
    assert "compared with the module at the sizes min" in report
    assert "before the engines were built" in report
    assert "NOT CHECKED" not in report


def test_what_would_be_wrong_stays_in_pytorch_or_is_right(tmp_path: Path) -> None:
    """The numbers of what was written are the module's, whoever computes them."""
    torch.manual_seed(0)
    module = Pyramid().eval()
    with partitions_kept():
        artifact = export_module(module, {"x": InputSpec((BATCH, 3, 11, 11))}, tmp_path / "m.windows.ep")
    check = artifact.manifest.check
    assert check is not None
    assert check.compared
    for left in check.left_to_pytorch:
        assert "adaptive_avg_pool2d" in left.operator
        assert "test_number_check.py" in left.line
        assert "relative error" in left.reason
        assert left.operator in artifact.manifest.fallback_ops
        assert "Fallback to PyTorch" in str(inspect(artifact.path))


def test_a_node_that_is_converted_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if TensorRT had made something else of a ReLU: it stays in PyTorch, and the manifest says so."""
    real_check, real_difference = NumberCheck.check_network, number_check._difference

    def check_network(self: NumberCheck, blocks: Any, name: str, graph: Any, interpreter: Any) -> None:
        has_relu = any(node.op == "call_function" and "relu" in str(node.target) for node in graph.graph.nodes)

        def difference(found: Any, wanted: Any) -> float:
            is_relu = isinstance(wanted, Tensor) and wanted.dim() == 4 and bool((wanted >= 0).all())
            is_output = isinstance(wanted, Tensor) and wanted.dim() == 2 and wanted.shape[1] == 10
            return 0.5 if has_relu and (is_relu or is_output) else real_difference(found, wanted)

        monkeypatch.setattr(number_check, "_difference", difference)
        try:
            real_check(self, blocks, name, graph, interpreter)
        finally:
            monkeypatch.setattr(number_check, "_difference", real_difference)

    monkeypatch.setattr(NumberCheck, "check_network", check_network)
    artifact = export_module(Classifier().eval(), IMAGES, tmp_path / "m.windows.ep")
    check = artifact.manifest.check
    assert check is not None
    assert [left.operator for left in check.left_to_pytorch] == ["aten.relu.default"]
    assert artifact.manifest.fallback_ops == ("aten.relu.default",)
    assert len(artifact.manifest.engines) == 2
    assert any("aten.relu.default" in note and "relative error 5.0e-01" in note for note in artifact.manifest.notes)


def test_a_program_that_lowering_has_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No artifact of this name is left."""
    real = NumberCheck._compare_lowered

    def shifted(self: NumberCheck, parted: Any, sample: Any, values: Any) -> None:
        real(self, parted, sample, [value + 1 for value in values])

    monkeypatch.setattr(NumberCheck, "_compare_lowered", shifted)
    with pytest.raises(CompileError, match=r"lowering has changed what .*: output 0 .* min \(batch=1\)"):
        export_module(Classifier().eval(), IMAGES, tmp_path / "m.windows.ep")
    assert not list(tmp_path.glob("*.ep"))
    assert not list(tmp_path.glob("*.json"))


class Below(nn.Module):
    """What stands below a diagonal, of which the smallest sizes have nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.diagonal(x, -2) + 1


ROWS = {"x": InputSpec((DimRange(1, 4, 9, "rows"), 5))}
WITH_SYM_MIN = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 14),
    reason="Torch-TensorRT 2.12 converts no sym_min",
)


@WITH_SYM_MIN
def test_nothing_at_the_smallest_sizes(tmp_path: Path) -> None:
    """An empty output is right, and is compared."""
    check = export_module(Below(), ROWS, tmp_path / "m.windows.ep").manifest.check
    assert check is not None
    assert [(sizes.name, sizes.engines) for sizes in check.compared] == [
        (name, 0.0) for name in ("min", "opt", "between", "max")
    ]


@WITH_SYM_MIN
def test_a_lowered_graph_that_fails_at_some_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it fails at all of them it is left out of the check, for operators may be missing on CPUs."""
    aten = torch.ops.aten

    def without_an_end(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
        places = torch.arange(torch.sym_min(x.shape[0] + offset, x.shape[1])) * (x.shape[1] + 1)
        return x.reshape(-1).index_select(0, places - offset * x.shape[1])

    monkeypatch.setitem(OWN_DECOMPOSITIONS, aten.diagonal.default, without_an_end)
    wanted = r"(?s)fails at the sizes min \(rows=1\), at which the module runs: .*It runs at the sizes opt \(rows=4\)"
    with pytest.raises(CompileError, match=wanted):
        export_module(Below(), ROWS, tmp_path / "m.windows.ep")
    assert not list(tmp_path.glob("*.ep"))
    later = {"x": InputSpec((DimRange(4, 4, 9, "rows"), 5))}
    export_module(Below(), later, tmp_path / "m.windows.ep")


def test_the_operator_whose_decomposition_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line of the model, however deep the fault lies."""
    aten = torch.ops.aten
    monkeypatch.setitem(OWN_DECOMPOSITIONS, aten.silu.default, lambda x: x * aten.hardsigmoid.default(x))
    monkeypatch.setitem(OWN_DECOMPOSITIONS, aten.hardsigmoid.default, lambda x: (x + 3.0).clamp(0.0, 6.0) / 6.0)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.nn.functional.hardsigmoid(x + 1.0)
            z = torch.nn.functional.silu(y * 3.0)
            return z * 2.0

    wanted = r"aten.silu.default \(test_number_check.py:\d+: z = .*silu.*\), with a relative error of"
    with pytest.raises(CompileError, match=wanted):
        export_module(Net(), {"x": InputSpec((4, 8))}, tmp_path / "m.windows.ep")
    assert not list(tmp_path.glob("*.ep"))


def test_a_program_that_would_give_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is loaded and run, and nothing is left of what is wrong."""
    real = written_check._repeating

    def negated(compiled: Any, sample: str) -> Any:
        open_engine = real(compiled, sample)

        def opened(record: Any, plan: Any) -> Any:
            run = open_engine(record, plan)
            return lambda inputs: [-value for value in run(inputs)]

        return opened

    monkeypatch.setattr(written_check, "_repeating", negated)
    with pytest.raises(CompileError, match=r"would not give what the module gives: output differs by"):
        export_module(Classifier().eval(), IMAGES, tmp_path / "m.windows.ep")
    assert not list(tmp_path.glob("*.ep"))


def test_random_numbers_are_said(tmp_path: Path) -> None:
    """They cannot be compared."""

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.rand_like(x)).relu() * 2

    artifact = export_module(Noisy(), {"x": InputSpec((BATCH, 4))}, tmp_path / "m.windows.ep")
    check = artifact.manifest.check
    assert check is not None
    assert check.compared == ()
    assert "draws random numbers" in str(check)


def test_what_is_not_a_number_in_the_module_is_said(tmp_path: Path) -> None:
    """It is no number to compare with; what is finite is compared all the same."""

    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x * 2, (x - 100).log()], 1)

    artifact = export_module(Halves(), {"x": InputSpec((BATCH, 4))}, tmp_path / "m.windows.ep")
    check = artifact.manifest.check
    assert check is not None
    assert check.compared
    assert "4 of 8 values of output 0 are NaN or infinite in the module as well" in check.not_checked[0]


@pytest.mark.parametrize(("precision", "least"), [("bf16", 1e-3), ("16", 1e-4)])
def test_rounding_of_a_low_precision_is_no_error(tmp_path: Path, precision: Any, least: float) -> None:
    """Outputs stay in float32, and are as far from the module's as the type that the engine computes in."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.GELU())]
    spec = {"input": InputSpec((BATCH, 64))}
    path = tmp_path / "m.windows.ep"
    artifact = export_module(nn.Sequential(*layers).eval(), spec, path, precision=precision, check="full")
    check = artifact.manifest.check
    assert check is not None
    assert (check.left_to_pytorch, artifact.manifest.fallback_ops) == ((), ())
    assert max(max(sizes.lowered, sizes.engines) for sizes in check.compared) > least


def test_a_node_is_judged_by_what_it_was_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not by the rounding of all before it: where no node is at fault, none is blamed."""
    blamed: list[str] = []
    real = NumberCheck._blame

    def blame(self: NumberCheck, *args: Any) -> None:
        blamed.append("asked")
        real(self, *args)

    monkeypatch.setattr(NumberCheck, "_blame", blame)
    monkeypatch.setattr(number_check, "_allowed", lambda *_: 1e-4)
    monkeypatch.setattr(number_check, "_most", lambda *_: 1.0)
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.GELU())]
    spec = {"input": InputSpec((BATCH, 64))}
    artifact = export_module(nn.Sequential(*layers).eval(), spec, tmp_path / "m.windows.ep", precision="bf16")
    assert blamed
    assert artifact.manifest.fallback_ops == ()


class Chaos(nn.Module):
    """The logistic map, which doubles each difference every time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).sigmoid()
        for _ in range(60):
            y = 3.99 * y * (1 - y)
        return y


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_module_that_magnifies_differences_is_refused_with_that_reason(tmp_path: Path, dtype: str) -> None:
    """No operator is blamed, and neither PyTorch nor TensorRT; without the check it is exported."""
    module, spec = Chaos().eval().to(getattr(torch, dtype)), {"x": InputSpec((4, 8), dtype)}
    wanted = (
        r"o single operator shows it.* The module magnifies the least difference: inputs that change in their last bit "
        r"change its results by \d\.\de[+-]\d\d, so that nothing that rounds in another order gives its numbers; check"
    )
    with pytest.raises(CompileError, match=wanted) as refused:
        export_module(module, spec, tmp_path / "m.windows.ep")
    assert "a fault of" not in str(refused.value)
    with networks_kept(build=False):
        assert export_module(module, spec, tmp_path / "m.windows.ep", check=False).manifest.engines


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """Then the manifest has no record of it."""
    artifact = export_module(Classifier().eval(), IMAGES, tmp_path / "m.windows.ep", check=False)
    assert artifact.manifest.check is None


def test_other_values_are_refused() -> None:
    """With the choices."""
    with pytest.raises(ConfigurationError, match="check must be one of 'auto', 'full', False, got 'quick'"):
        ExportSettings(check="quick")  # type: ignore[arg-type]
    assert dataclasses.replace(ExportSettings(), check="full").check == "full"
