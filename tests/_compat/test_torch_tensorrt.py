"""Each workaround for Torch-TensorRT is still needed by the installed version; a failure here says: delete it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows._compat import torch_tensorrt as compat
from lightning_trt_windows._compat.cpu_build import is_cpu_build
from lightning_trt_windows._compat.versions import minor


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, and the import works")
def test_import_still_needs_a_gpu() -> None:
    """A plain import fails without a GPU; through our door it succeeds."""
    plain = subprocess.run([sys.executable, "-c", "import torch_tensorrt"], capture_output=True, text=True, check=False)
    assert plain.returncode != 0, "delete no_gpu._ampere: torch_tensorrt imports without a GPU"
    assert compat.upstream().version


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, and nothing is printed")
@pytest.mark.skipif(is_cpu_build(), reason="the library that prints is not loaded beside a CPU-only PyTorch")
def test_import_still_says_that_there_is_no_gpu() -> None:
    """The C++ library prints a line at import; through our door it does not, and nothing else is lost."""
    code = "from lightning_trt_windows._compat import no_gpu, torch_tensorrt as c\n{}c.upstream()"
    loud = code.format("import contextlib; no_gpu._one_line_less = contextlib.nullcontext\n")
    line = "Unable to read CUDA capable devices"
    runs = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
        for text in (loud, code.format(""))
    ]
    assert line in runs[0].stdout + runs[0].stderr, "delete _one_line_less: the line is gone"
    assert line not in runs[1].stdout + runs[1].stderr


def test_attention_still_decomposes_below_the_bound() -> None:
    """Up to the bound attention is in the table of decompositions, from there on it is not."""
    blocks = compat.upstream()
    attention = torch.ops.aten.scaled_dot_product_attention.default
    decomposed = attention in blocks.get_decompositions(False, False)
    assert decomposed is compat.ATTENTION_DECOMPOSES.needed_by(blocks.version)


def test_complex_numbers_lose_shapes_below_the_bound() -> None:
    """Up to the bound what comes after complex numbers lacks a dimension once lowered, from there on it does not."""

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft(x).abs()

    blocks = compat.upstream()
    settings = blocks.CompilationSettings(device=blocks.Device(gpu_id=0))
    program = torch.export.export(Module(), (torch.randn(2, 64),), strict=False)
    decomposed = program.run_decompositions(compat.decompositions(blocks, settings))
    lowered = blocks.post_lowering(decomposed.module(), settings)
    output = next(n for n in lowered.graph.nodes if n.op == "output").all_input_nodes[0]
    lost = tuple(output.meta["val"].shape) != (2, 33)
    if minor(blocks.version) == (2, 11):
        pytest.skip("2.11, which is not for users, does not lose this one; it is refused there all the same")
    assert lost is compat.COMPLEX_NUMBERS_LOSE_SHAPES.needed_by(blocks.version)
    assert lost is not blocks.takes_complex_numbers


def test_repeated_outputs_are_still_dropped() -> None:
    """Upstream's interpreter marks a tensor once, however often the graph returns it; ours gives each its own."""
    from lightning_trt_windows.backends.engine import _interpreter_class

    class Module(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x + 1
            return y, y

    blocks = compat.upstream()
    graph = torch.export.export(Module(), (torch.randn(2, 4),), strict=False).module()
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    for node in list(graph.graph.nodes):
        if node.op == "call_module":
            graph.graph.erase_node(node)
    settings = blocks.CompilationSettings(device=blocks.Device(gpu_id=0))
    counts = []
    for cls in (blocks.TRTInterpreter, _interpreter_class(blocks)):
        interpreter = cls(
            graph,
            blocks.construct_submodule_inputs(graph),
            output_dtypes=blocks.infer_module_output_dtypes(graph),
            compilation_settings=settings,
        )
        interpreter._construct_trt_network_def()
        counts.append(len(interpreter._output_names))
    assert counts[0] == 1, "delete the override of output(): upstream gives every output a tensor of its own"
    assert counts[1] == 2
