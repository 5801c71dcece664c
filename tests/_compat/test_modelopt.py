"""What NVIDIA's Model Optimizer does to modules in INT8 where there is no GPU, with the installed one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("modelopt", reason="quantises with nvidia-modelopt")


@pytest.mark.filterwarnings("ignore")
def test_int8_on_a_cpu_still_looks_at_its_scale() -> None:
    """The mode that modelopt has for exports does not help; when this fails, delete INT8_LOOKS_AT_ITS_SCALE."""
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.utils import export_torch_mode

    x = torch.randn(4, 8)
    module = mtq.quantize(nn.Linear(8, 4).eval(), mtq.INT8_DEFAULT_CFG, forward_loop=lambda m: m(x))
    with export_torch_mode(), pytest.raises(Exception, match="data-dependent"):
        torch.export.export(module, (x,), strict=False)


def test_the_operator_for_int8_still_needs_cuda() -> None:
    """In a process of its own, where the workaround has not been at work; when this fails, delete INT8_NEEDS_CUDA."""
    code = """
import torch
from modelopt.torch.quantization import tensor_quant
if tensor_quant.get_cuda_ext() is not None:
    raise SystemExit(3)
try:
    torch.ops.tensorrt.quantize_op(torch.ones(4), torch.ones(()), 8, 0, False, True)
except AttributeError as error:
    assert "fake_tensor_quant" in str(error), error
    from lightning_trt_windows._compat.modelopt import quantizers_run_on_cpus
    quantizers_run_on_cpus()
    assert torch.equal(torch.ops.tensorrt.quantize_op(torch.ones(4), torch.ones(()), 8, 0, False, True), torch.ones(4))
else:
    raise SystemExit("the operator runs")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("there is CUDA here")
    assert done.returncode == 0, done.stderr
