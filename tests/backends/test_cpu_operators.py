"""What PyTorch has for CPUs only is refused: it could not fall back to PyTorch on the PC, which runs it on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.backends.cpu_operators import ON_CPUS_ONLY
from lightning_trt_windows.errors import CompileError

INTERNAL = {
    "aten::_foobar",
    "aten::_functional_assert_async",
    "aten::_make_dep_token",
    "aten::_test_functorch_fallback",
    "aten::_test_optional_filled_intlist",
    "aten::_test_optional_floatlist",
    "aten::_test_optional_intlist",
}
"""PyTorch's own tests, and what exports take out."""


class Calls(nn.Module):
    """A function between two operators that engines take."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.relu() * 0.5) * 2.0


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "histogram": (lambda x: torch.histogram(x, 4).hist, r"aten.histogram.bin_ct .*CPUs \(test_cpu_operators.py:\d+"),
    "histogramdd": (lambda x: torch.histogramdd(x, [2] * 8).hist, "aten._histogramdd_from_bin_cts.* torch.histc, and"),
    "attention": (
        lambda x: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*[x[None, None]] * 3)[0],
        r"Call torch\.nn\.functional\.scaled_dot_product_attention",
    ),
    "mkldnn": (lambda x: x.to_mkldnn().relu().to_dense(), r"aten.to_mkldnn.* \(no to_mkldnn\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(tmp_path: Path, name: str) -> None:
    """With the line of the model, and what runs on GPUs; nothing is left on the disk."""
    function, wanted = REFUSED[name]
    with pytest.raises(CompileError, match=wanted):
        export_module(Calls(function), {"x": InputSpec((4, 8))}, tmp_path / "m.windows.ep")
    assert not list(tmp_path.glob("*.ep"))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.histc(x, 4),
        lambda x: torch.bincount(torch.bucketize(x, torch.tensor([0.25, 0.5])).flatten(), minlength=3),
        lambda x: nn.functional.scaled_dot_product_attention(*[x[None, None]] * 3),
        torch.diag_embed,
    ],
)
def test_what_the_refusal_says_to_write_is_exported(tmp_path: Path, function: Callable[[Tensor], Tensor]) -> None:
    """It counts, and attends, as the module does."""
    artifact = export_module(Calls(function), {"x": InputSpec((DimRange(2, 4, 8), 8))}, tmp_path / "m.windows.ep")
    check = artifact.manifest.check
    assert check is not None
    assert check.compared


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a PyTorch for CPUs does not say what GPUs have")
def test_the_table_has_what_pytorch_has_for_cpus_only() -> None:
    """When this fails, PyTorch has a new operator without a kernel for GPUs: say what can be done about it."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    anywhere = (
        "CUDA",
        "CompositeImplicitAutograd",
        "CompositeExplicitAutograd",
        "CompositeExplicitAutogradNonFunctional",
    )
    found = {
        name.partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::") and has(name, "CPU") and not any(has(name, key) for key in anywhere)
        # those that write to an argument, and those of training, are in no exported program
        if not name.endswith(("out", ".grad_input", ".output")) and "backward" not in name
    }
    assert {name for name in found if not name.endswith("_")} - INTERNAL <= ON_CPUS_ONLY.keys()
