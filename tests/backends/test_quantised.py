"""Modules that NVIDIA's Model Optimizer has quantised, on TensorRT-RTX engines: INT8 and FP8, built without a GPU."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from support.simulation import partitions_kept
from torch import nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.capture.program import capture
from lightning_trt_windows.errors import CompileError
from lightning_trt_windows.export.saved_program import load_program, save_program

pytest.importorskip("modelopt", reason="quantises with nvidia-modelopt")


def quantised(kind: str, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """``module`` after calibration with random data."""
    import modelopt.torch.quantization as mtq

    torch.manual_seed(0)
    data = [torch.randn(4, *shape) for _ in range(4)]
    config = {"int8": mtq.INT8_DEFAULT_CFG, "fp8": mtq.FP8_DEFAULT_CFG}[kind]
    result: nn.Module = mtq.quantize(module.eval(), config, forward_loop=lambda m: [m(x) for x in data])
    return result


def layers() -> nn.Module:
    """Matrix products."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def convolutions() -> nn.Module:
    """One, and a matrix product."""
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "make", "shape"),
    [("int8", layers, (64,)), ("fp8", layers, (64,)), ("fp8", convolutions, (3, 8, 8))],
)
def test_quantisers_are_in_the_engine(kind: str, make: Any, shape: tuple[int, ...], tmp_path: Any) -> None:
    """Those of inputs and of weights, with their scales; nothing stays in PyTorch, and weights are not folded."""
    module = quantised(kind, make(), shape)
    with partitions_kept() as partitions:
        artifact = export_module(module, {"input": InputSpec((DimRange(1, 4, 8), *shape))}, tmp_path / "q.windows.ep")
    assert artifact.manifest.fallback_ops == () and len(artifact.manifest.engines) == 1
    (graph,) = partitions.values()
    bits = [node.args[2:4] for node in graph.graph.nodes if "quantize_op" in str(node.target)]
    assert bits == [(8, 0 if kind == "int8" else 4)] * 4


@pytest.mark.filterwarnings("ignore")
def test_convolutions_in_int8_are_refused_with_what_to_do(tmp_path: Any) -> None:
    """TensorRT-RTX has none, and names a file of its own."""
    module = quantised("int8", convolutions(), (3, 8, 8))
    with pytest.raises(CompileError, match="has a convolution in INT8, which TensorRT-RTX does not have: quantise"):
        export_module(module, {"input": InputSpec((DimRange(1, 4, 8), 3, 8, 8))}, tmp_path / "q.windows.ep")


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_quantised_program_travels_and_runs_on_a_cpu(kind: str) -> None:
    """To the process that builds; and goldens are recorded from it."""
    module, x = quantised(kind, layers(), (64,)), torch.randn(4, 64)
    program = capture(module, {"input": InputSpec((DimRange(1, 4, 8), 64))}).program
    file = io.BytesIO()
    save_program(program, file)
    file.seek(0)
    with torch.no_grad():
        torch.testing.assert_close(load_program(file).module()(x), module(x))
