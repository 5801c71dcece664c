"""``bench``: which sizes, what is counted, and what it says; engines are stood in for, so times mean nothing here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stand_in import StandIn, export_for_test
from torch import nn

from lightning_trt_windows import DimRange, InputSpec, bench
from lightning_trt_windows.errors import ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.verification.bench import (
    _batches,
    _percentile,
    _supported,
    _take_error_left_behind,
    batch_symbol,
    write_bench,
)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, StandIn]:
    """A linear layer for batches of 1 to 12."""
    module = nn.Linear(4, 2).eval()
    path = tmp_path_factory.mktemp("bench") / "linear.windows.ep"
    return module, export_for_test(module, {"input": InputSpec((DimRange(1, 6, 12), 4))}, path)


def test_batches_are_the_bounds_and_powers_of_two(linear: tuple[nn.Module, StandIn]) -> None:
    """The usual one too; others where they are asked for."""
    manifest = linear[1].artifact.manifest
    assert batch_symbol(manifest) == "batch"
    assert _batches(manifest, None) == [1, 2, 4, 6, 8, 12]
    assert _batches(manifest, [3, 1, 3]) == [1, 3]
    with pytest.raises(ConfigurationError, match="between 1 and 12, got 13"):
        _batches(manifest, [4, 13])


def test_a_static_artifact_is_measured_once(linear: tuple[nn.Module, StandIn]) -> None:
    """It has no batch to vary."""
    manifest = linear[1].artifact.manifest
    record = dataclasses.replace(manifest.inputs[0], min=(6, 4), max=(6, 4), symbols=(None, None))
    static = dataclasses.replace(manifest, inputs=(record,))
    assert batch_symbol(static) is None
    assert _batches(static, None) == [None]
    with pytest.raises(ConfigurationError, match="no dynamic batch"):
        _batches(static, [2])


def test_every_side_is_measured_at_every_batch(linear: tuple[nn.Module, StandIn]) -> None:
    """Percentiles are in order, throughput counts samples, and nothing that has no meaning off a GPU is there."""
    module, stand_in = linear
    found = bench(stand_in.artifact.path, calls=5, batches=[2, 12], reference=module, loaded=stand_in.load())
    assert [(point.by, point.batch) for point in found.points] == [
        ("load", 2),
        ("eager", 2),
        ("load", 12),
        ("eager", 12),
    ]
    for point in found.points:
        assert 0 < point.p50 <= point.p90 <= point.p99
        assert point.throughput > 0
        assert point.first_call > 0
    assert (found.memory, found.load_seconds, found.supported_gpu) == (None, None, None)
    assert found.versions["torch"] == torch.__version__
    assert "P99 ms" in str(found)
    assert "eager" in str(found)


def test_onnxruntime_is_measured_with_copies_and_without(
    linear: tuple[nn.Module, StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sides, a session each; the model of another artifact is refused. On ONNX Runtime's CPU provider here."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    artifact, loaded = linear[1].artifact, linear[1].load()
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    given, back = (make.make_tensor_value_info(name, kind, ["batch", 4]) for name in ("input", "output"))
    graph = make.make_graph([make.make_node("Relu", ["input"], ["output"])], "relu", [given], [back])
    opened: list[int] = []

    def open_session(path: Path, device_index: int) -> Any:
        opened.append(device_index)
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
        make.set_model_props(
            model, {"artifact_sha256": artifact.manifest.ep.sha256 if path.stem == "own" else "0" * 64}
        )
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    monkeypatch.setattr("lightning_trt_windows.verification.bench.open_session", open_session)
    found = bench(artifact.path, calls=3, batches=[2, 12], onnx="own.onnx", loaded=loaded)
    sides = ["load", "onnxruntime", "onnxruntime_gpu"]
    assert [(point.by, point.batch) for point in found.points] == [(by, size) for size in (2, 12) for by in sides]
    assert opened == [0, 0]
    assert found.versions["onnxruntime"] == onnxruntime.__version__
    with pytest.raises(ConfigurationError, match=f"lightning-trt-windows onnx {artifact.path.name}"):
        bench(artifact.path, calls=3, onnx="other.onnx", loaded=loaded)


def test_figures_are_written_beside_the_artifact(linear: tuple[nn.Module, StandIn]) -> None:
    """As JSON that says which artifact they are of."""
    stand_in = linear[1]
    found = bench(stand_in.artifact.path, calls=2, batches=[1], loaded=stand_in.load())
    path = write_bench(stand_in.artifact, found)
    assert path.name == "linear.windows.bench.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["sha256"] == stand_in.artifact.manifest.ep.sha256
    assert written["points"][0]["batch"] == 1
    assert written["format_version"] == "1.0"
    path.unlink()


def test_percentiles_are_of_the_nearest_rank() -> None:
    """A value that was measured, and the largest at the end."""
    values = [float(number) for number in range(1, 101)]
    assert [_percentile(values, fraction) for fraction in (0.5, 0.9, 0.99)] == [50.0, 90.0, 99.0]
    assert _percentile([3.0], 0.5) == 3.0


def test_gpus_that_engines_were_not_built_for_are_told_apart(linear: tuple[nn.Module, StandIn]) -> None:
    """Between the listed ones is not on the list; beyond all of them is newer."""
    manifest = linear[1].artifact.manifest

    class Clock:
        def __init__(self, capability: str | None) -> None:
            self.capability = capability

    found = {capability: _supported(manifest, Clock(capability)) for capability in ("8.6", "9.0", "99.0", None)}  # type: ignore[arg-type]
    assert found == {"8.6": True, "9.0": False, "99.0": True, None: None}


def test_a_gpu_is_needed(linear: tuple[nn.Module, StandIn], tmp_path: Path) -> None:
    """Without one the command says what is missing."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU on this machine")
    from lightning_trt_windows.cli import main

    assert main(["bench", str(linear[1].artifact.path)]) == 3


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_an_error_that_another_library_left_is_not_ours(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA reports it once, to whoever asks next; what is reported again is there to stay."""
    zeros, left = torch.zeros, [failures]

    def asked(*args: object, **options: object) -> torch.Tensor:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("CUDA error: invalid device ordinal\nmore")
        return zeros(1)

    monkeypatch.setattr(torch, "zeros", asked)
    if failures < 2:
        _take_error_left_behind(Path("m.windows.onnx"), torch.device("cpu"))
    else:
        with pytest.raises(EnvironmentMismatchError, match="CUDA says on cpu: CUDA error: invalid device ordinal"):
            _take_error_left_behind(Path("m.windows.onnx"), torch.device("cpu"))
