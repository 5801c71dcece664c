"""Each workaround for PyTorch is still needed by the installed version; a failure here says: delete it."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from lightning_trt_windows._compat import torch as compat
from lightning_trt_windows._compat.versions import minor


def guards_of_a_convolution() -> list[str]:
    """What propagating a convolution with a batch of any size makes of that size."""
    environment = ShapeEnv()
    mode = FakeTensorMode(shape_env=environment)
    x = mode.from_tensor(
        torch.randn(5, 3, 8, 8),
        symbolic_context=StatelessSymbolicContext([DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * 3]),
    )
    with mode:
        nn.functional.conv2d(x, torch.randn(8, 3, 3, 3))
    return [str(guard.expr) for guard in environment.guards]


def test_convolutions_still_guard_on_the_batch() -> None:
    """Without the workaround the batch stays below 16, or from 16 on; with it, nothing is said of it."""
    assert any("16" in guard for guard in guards_of_a_convolution()), "delete cpu_convolution_heuristics_off"
    with compat.cpu_convolution_heuristics_off():
        assert guards_of_a_convolution() == []


def test_the_current_stream_is_still_an_object_made_in_python() -> None:
    """Where PyTorch itself asks for the number only, it calls what we call."""
    made = "return Stream(" in inspect.getsource(torch.cuda.current_stream)
    assert made, "delete current_stream_handle: torch.cuda.current_stream(device).cuda_stream costs no more"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="streams need an NVIDIA GPU")
def test_handle_of_the_current_stream() -> None:
    """The same number by the public way."""
    device = torch.device("cuda", torch.cuda.current_device())
    for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            assert (
                compat.current_stream_handle(device)() == stream.cuda_stream == torch.cuda.current_stream().cuda_stream
            )


def test_torch_export_still_prints_its_graph(capsys: pytest.CaptureFixture[str]) -> None:
    """A failed export prints the graph to stderr; with the workaround it does not."""

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.nonzero().numel() == 0 else x + 1

    for context, printed in ((compat.partial_graph_not_printed, False), (contextlib.nullcontext, True)):
        with context(), pytest.raises(Exception, match="data-dependent"):
            torch.export.export(Module(), (torch.randn(3),), strict=False)
        assert ("def forward" in capsys.readouterr().err) is printed, "delete partial_graph_not_printed"


def test_multiples_are_still_read_as_symbols(tmp_path: Path) -> None:
    """A loaded program with a dimension of multiples can be decomposed with the workaround only."""
    multiples = {"input": {0: 8 * torch.export.Dim("d", min=1, max=4)}}
    program = torch.export.export(nn.ReLU(), (torch.rand(16, 3),), dynamic_shapes=multiples, strict=False)
    torch.export.save(program, tmp_path / "program.pt2")
    with pytest.raises(AssertionError, match=r"expected sympy\.Symbol"):
        torch.export.load(tmp_path / "program.pt2").run_decompositions()
    loaded = torch.export.load(tmp_path / "program.pt2")
    compat.only_symbols_have_ranges(loaded)
    assert loaded.run_decompositions().module()(torch.rand(24, 3)).shape == (24, 3)


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


def test_batch_norm_still_asks_whether_it_is_empty() -> None:
    """Sums of rows by an index can be normalised with the workaround only, and are the same."""

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor, index: Tensor) -> Tensor:
            rows = (index.max() + 1).item()
            torch._check(rows >= 0)
            result: Tensor = self.norm(x.new_zeros(rows, 3).index_add(0, index, x))
            return result

    torch.manual_seed(0)
    module = Sums()
    module(torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 3]))
    module.eval()
    x, index = torch.randn(5, 3), torch.tensor([0, 0, 1, 2, 2])

    def traced() -> Any:
        return torch.export.export(module, (x, index), strict=False).module()

    with compat.batch_norm_without_questions():
        program = traced()
    for given in (index, torch.tensor([0, 1, 2, 3, 4])):
        torch.testing.assert_close(program(x, given), module(x, given))
    with pytest.raises(Exception, match="data-dependent"):
        traced()


def test_a_failed_export_leaves_a_hook_below_the_bound() -> None:
    """The module can be given a buffer afterwards where the block took the hook away."""

    class Bank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bank", torch.empty(0, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.bank.numel() == 0:
                raise ValueError("the memory bank is empty")
            return x

    hooks = torch.nn.modules.module._global_buffer_registration_hooks
    before = set(hooks)  # of other tests
    module = Bank().eval()
    with compat.no_buffer_hook_stays(), pytest.raises(ValueError, match="the memory bank is empty"):
        torch.export.export(module, (torch.rand(2, 1),), strict=False)
    assert set(hooks) == before
    module.bank = torch.rand(3, 1)
    with pytest.raises(ValueError, match="the memory bank is empty"):
        torch.export.export(Bank().eval(), (torch.rand(2, 1),), strict=False)
    left = set(hooks) - before
    for key in left:
        del hooks[key]
    if minor(torch.__version__) != (2, 13):  # which was not tried
        assert bool(left) == compat.BUFFER_HOOK_STAYS.needed_by(torch.__version__)


def test_bounds_that_are_fractions_still_end_in_an_assertion() -> None:
    """A module that takes sizes below 7/2: with the workaround there is a suggestion, without it an AssertionError."""

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:1] if 2 * x.shape[0] < 7 else x

    dims = {"x": {0: torch.export.Dim("n", min=1, max=8)}}
    with pytest.raises(AssertionError, match="Expected op to be '=='"):
        torch.export.export(Module(), (torch.randn(3, 2),), dynamic_shapes=dims, strict=False)
    suggested = pytest.raises(Exception, match=r"Suggested fixes:\s+n = Dim\('n', max=3\)")
    with compat.bounds_made_whole(), suggested:
        torch.export.export(Module(), (torch.randn(3, 2),), dynamic_shapes=dims, strict=False)


@pytest.mark.parametrize(
    ("relation", "whole"),
    [
        ("L['x'].size()[0] < 7/2", "L['x'].size()[0] <= 3"),
        ("L['x'].size()[0] <= 4", "L['x'].size()[0] <= 4"),
        ("L['x'].size()[0] < 4", "L['x'].size()[0] <= 3"),
        ("77/25 <= L['x'].size()[0]", "L['x'].size()[0] >= 4"),
        ("5/2 < L['x'].size()[0]", "L['x'].size()[0] >= 3"),
        ("3 < L['x'].size()[0]", "L['x'].size()[0] >= 4"),
        ("-1 <= L['x'].size()[0]", ""),
        ("L['x'].size()[0] <= L['y'].size()[0]", ""),
        ("L['x'].size()[0] == 2*_n", "L['x'].size()[0] == 2*_n"),
    ],
)
def test_whole_bounds(relation: str, whole: str) -> None:
    """The same sizes, in whole numbers; what is no bound of one size by a number is left out."""
    assert compat._with_whole_bound(relation) == whole


@pytest.mark.parametrize("start", [2, -3])
def test_narrow_still_loses_a_start_that_is_a_tensor(start: int) -> None:
    """It can be traced with the workaround only, in both ways to call it, and gives the same."""

    class Module(nn.Module):
        def forward(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
            return x.narrow(1, start, 2), torch.narrow(x, dim=-1, start=start, length=3)

    module, given = Module(), (torch.rand(3, 6), torch.tensor(start))
    with pytest.raises(Exception, match="Pending unbacked symbols"):
        torch.export.export(module, given, strict=False)
    with compat.narrow_starts_read():
        program = torch.export.export(module, given, strict=False).module()
    for found, wanted in zip(program(*given), module(*given), strict=True):
        torch.testing.assert_close(found, wanted)
