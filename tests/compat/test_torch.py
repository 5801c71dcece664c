"""Each workaround for PyTorch is still needed by the installed version; a failure here says: delete it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from lightning_trt_windows._compat import torch as compat
from lightning_trt_windows._compat.torch_tensorrt import upstream

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


def range_after_lowering() -> tuple[int, int]:
    """The range of a dynamic batch of 1 to 16 after a convolution has been lowered."""
    program = torch.export.export(
        nn.Conv2d(3, 8, 3), (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: Dim("b", min=1, max=16)},), strict=False
    )
    blocks = upstream()
    settings = blocks.CompilationSettings(device=blocks.Device(gpu_id=0))
    graph = blocks.post_lowering(program.run_decompositions(blocks.get_decompositions()).module(), settings)
    size = next(n for n in graph.graph.nodes if n.op == "placeholder").meta["val"].shape[0]
    bounds = size.node.shape_env.bound_sympy(size.node.expr)
    return int(bounds.lower), int(bounds.upper)


def test_convolution_keeps_its_range() -> None:
    """With the workaround the range stays, on every processor."""
    with compat.cpu_convolution_heuristics_off():
        assert range_after_lowering() == (2, 16)


@pytest.mark.skipif(VERSION < (2, 14), reason="CONVOLUTION_NARROWS_RANGES begins with 2.14")
def test_convolution_heuristics_still_narrow_ranges() -> None:
    """Without the workaround the range is narrowed, where the processor is one whose kernels are picked by batch."""
    if range_after_lowering() == (2, 16):
        pytest.skip("this processor's convolutions are not picked by batch size, so nothing is shown here")


def test_torch_export_still_prints_its_graph(capsys: pytest.CaptureFixture[str]) -> None:
    """A failed export prints the graph to stderr; with the workaround it does not."""

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.nonzero().numel() == 0 else x + 1

    for context, printed in ((compat.partial_graph_not_printed, False), (compat.quiet, True)):
        with context(), pytest.raises(Exception, match="data-dependent"):
            torch.export.export(Module(), (torch.randn(3),), strict=False)
        assert ("def forward" in capsys.readouterr().err) is printed, "delete partial_graph_not_printed"


def test_transformers_still_look_for_causal_masks() -> None:
    """A decoder with a mask can be traced with the workaround only, and computes the same."""
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    module = nn.TransformerDecoder(layer, 1).eval()
    x, memory = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    mask = torch.ones(5, 5).triu(1).bool()

    def traced() -> Any:
        return torch.export.export(module, (x, memory, mask), strict=False).module()

    with compat.causal_masks_not_looked_for():
        program = traced()
    for given in (mask, mask.roll(1, 0) & ~torch.eye(5).bool()):
        torch.testing.assert_close(program(x, memory, given), module(x, memory, given))
    with pytest.raises(Exception, match="data-dependent"):
        traced()
