"""Workarounds for NVIDIA's Model Optimizer (``nvidia-modelopt``), imported only where a program has its operators."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from lightning_trt_windows._compat.versions import Workaround
from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = [
    "INT8_LOOKS_AT_ITS_SCALE",
    "INT8_NEEDS_CUDA",
    "import_quantizers_of",
    "quantizers_run_on_cpus",
    "quantizers_traced",
]

_DONE = "_lightning_trt_windows_on_cpus"
"""Marks modelopt's module where the operator has been given its implementation."""

INT8_LOOKS_AT_ITS_SCALE = Workaround(
    upstream="nvidia-modelopt",
    since="0.47",
    until=None,
    reason="On a CPU a quantiser to INT8 looks at the values of its scale, which no trace can follow, instead of "
    "calling the operator that Torch-TensorRT converts, as it does on a GPU.",
    link="https://github.com/NVIDIA/Model-Optimizer/blob/0.47.0/modelopt/torch/quantization/tensor_quant.py",
    test="test_modelopt.py::test_int8_on_a_cpu_still_looks_at_its_scale",
    delete="torch.export captures a module quantised to INT8 on a CPU, with the operator tensorrt::quantize_op in it.",
)

INT8_NEEDS_CUDA = Workaround(
    upstream="nvidia-modelopt",
    since="0.47",
    until=None,
    reason="tensorrt::quantize_op to INT8 is registered for CPUs and calls an extension for CUDA, which is not there: "
    "no program with it can be lowered on a CPU, and no goldens recorded.",
    link="https://github.com/NVIDIA/Model-Optimizer/blob/0.47.0/modelopt/torch/quantization/tensor_quant.py",
    test="test_modelopt.py::test_the_operator_for_int8_still_needs_cuda",
    delete="tensorrt::quantize_op to INT8 runs on a CPU without CUDA.",
)


@contextlib.contextmanager
def quantizers_traced() -> Iterator[None]:
    """Let ``torch.export`` record a quantiser as the one operator that Torch-TensorRT converts. Only while capturing.

    modelopt does so itself in its ``export_torch_mode``, for FP8; for INT8 only on a GPU: on a CPU it takes a path that
    looks at the values of the scale (``INT8_LOOKS_AT_ITS_SCALE``).
    """
    quantization = sys.modules.get("modelopt.torch.quantization")
    if quantization is None:
        # a module with quantisers has imported it
        yield
        return
    tensor_quant: Any = importlib.import_module("modelopt.torch.quantization.tensor_quant")
    utils: Any = importlib.import_module("modelopt.torch.quantization.utils")
    quantizers_run_on_cpus()
    real = tensor_quant._tensor_quant

    def traced(
        inputs: Any, amax: Any, num_bits: Any = 8, unsigned: bool = False, narrow_range: bool = True, **others: Any
    ) -> Any:
        if num_bits != 8 or others:
            return real(inputs, amax, num_bits, unsigned, narrow_range, **others)
        return tensor_quant.quantize_op(inputs, amax, 8, 0, unsigned, narrow_range)

    with utils.export_torch_mode(), mock.patch.object(tensor_quant, "_tensor_quant", traced):
        yield


def import_quantizers_of(program: bytes) -> None:
    """Import modelopt where a saved program has its operators, without which it does not load.

    Args:
        program: The graph as ``torch.export.save`` writes it.

    Raises:
        EnvironmentMismatchError: modelopt is not installed here.
    """
    if b"torch.ops.tensorrt.quantize_op" not in program:
        return
    try:
        importlib.import_module("modelopt.torch.quantization")
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"the program was quantised with modelopt, which does not import where it is built: {error}. Install it "
            "there: pip install nvidia-modelopt"
        ) from error


def quantizers_run_on_cpus() -> None:
    """Give the operator of INT8 quantisers an implementation where modelopt has none, which is without CUDA.

    Lowering and goldens run captured programs on the CPU. modelopt's own arithmetic for CPUs takes the place of the
    extension that is not there; does nothing where there is one, or no modelopt. See ``INT8_NEEDS_CUDA``.
    """
    tensor_quant = sys.modules.get("modelopt.torch.quantization.tensor_quant")
    if tensor_quant is None or tensor_quant.get_cuda_ext() is not None or hasattr(tensor_quant, _DONE):
        return
    on_cpu = tensor_quant._tensor_quant

    def fake_quant(inputs: Any, amax: Any, num_bits: int = 8, unsigned: bool = False, narrow_range: bool = True) -> Any:
        return on_cpu(inputs, amax, num_bits, unsigned, narrow_range)

    tensor_quant.fake_quant_impl = fake_quant  # type: ignore[attr-defined]  # a module's function
    setattr(tensor_quant, _DONE, True)
