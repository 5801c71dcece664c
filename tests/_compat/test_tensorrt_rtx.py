"""What TensorRT-RTX does not build, tried with the installed one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.simulation import compile_for_test
from torch import nn
from torch.export import Dim

from lightning_trt_windows.backends import precision as precisions
from lightning_trt_windows.errors import CompileError


@pytest.mark.parametrize("make", [nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_transposed_convolutions_in_bfloat16_are_still_not_built(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left in bfloat16, TensorRT-RTX gives no engine; when this fails, delete NO_TRANSPOSED_BFLOAT16."""
    monkeypatch.setattr(precisions, "is_transposed_convolution", lambda node: False)
    module = make(8, 4, 2, 2).to(torch.bfloat16)
    x = torch.randn(2, 8, *[6] * (module.weight.dim() - 2)).to(torch.bfloat16)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: Dim("batch", max=8)},), strict=False)
    with pytest.raises(CompileError, match="built no engine"):
        compile_for_test(program)
