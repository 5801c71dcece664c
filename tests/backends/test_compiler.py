"""The compile path on real TensorRT-RTX engines: what upstream gets wrong in silence is repaired or refused."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from support.evaluating import compile_evaluated
from support.simulation import Simulated, compile_for_test
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows._compat.recurrent import recurrent_nets_kept_whole
from lightning_trt_windows._compat.torch_tensorrt import upstream
from lightning_trt_windows._compat.versions import minor
from lightning_trt_windows.artifact.engine_header import read_header
from lightning_trt_windows.artifact.payload_writer import join_payloads
from lightning_trt_windows.backends import get_backend
from lightning_trt_windows.backends import unsupported as refusals
from lightning_trt_windows.backends.assemble import inline_modules
from lightning_trt_windows.backends.lost_dimensions import refuse_lost_dimensions
from lightning_trt_windows.backends.tensorrt_rtx import BUILDS_WITH, _check_version
from lightning_trt_windows.errors import CompileError, ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.settings import ExportSettings


def exported(module: nn.Module, *args: Any, dims: Any = None, **kwargs: Any) -> ExportedProgram:
    """``module`` captured with a batch of 1 to 16 in axis 0 of every input, unless ``dims`` says otherwise."""
    batch = Dim("batch", min=1, max=16)
    if dims is None:
        dims = tuple({0: batch} for _ in args)
    return torch.export.export(module, args, kwargs, dynamic_shapes=dims, strict=False)


def check_against_eager(module: nn.Module, compiled: Simulated, *args: Tensor) -> None:
    """The program around the engines gives what eager gives, at the traced batch and at a batch of one."""
    for batch in (args[0].shape[0], 1):
        inputs = tuple(a[:batch] for a in args)
        with torch.no_grad():
            wanted = copy.deepcopy(module)(*inputs)
        torch.testing.assert_close(compiled(*inputs), wanted, rtol=1e-4, atol=1e-5)


class Small(nn.Module):
    """A linear layer, so that there is an engine."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("anchors", torch.arange(12.0).reshape(3, 4))


class TestOutputs:
    """Outputs come back as forward returned them."""

    def test_one_tensor_returned_twice(self) -> None:
        """Each output is a tensor of its own in the engine, also where a view changes nothing."""

        class Module(Small):
            def forward(self, x: Tensor) -> Any:
                y = self.linear(x)
                return y, y, y.reshape(-1, 2, 2), y.view(-1, 4), x

        module, x = Module(), torch.randn(2, 4)
        compiled = compile_for_test(exported(module, x))
        (engine,) = compiled.compiled.engines.values()
        returned = compiled.partitions[engine.name].graph.output_node().args[0]
        assert len(engine.outputs) == len(returned)
        check_against_eager(module, compiled, x)

    def test_constants_and_sizes_among_outputs(self) -> None:
        """None, numbers and the batch size come back where forward put them."""

        class Module(Small):
            def forward(self, x: Tensor) -> Any:
                return {"y": self.linear(x), "none": None, "seven": 7, "batch": x.shape[0]}

        x = torch.randn(2, 4)
        compiled = compile_for_test(exported(Module(), x))
        result = compiled(x)
        assert list(result) == ["y", "none", "seven", "batch"]
        assert (result["none"], result["seven"], int(result["batch"])) == (None, 7, 2)

    def test_arguments_that_are_no_tensors(self) -> None:
        """Flags, numbers, None and strings among the arguments are fixed, and keep their places in the call."""

        class Module(Small):
            def forward(self, x: Tensor, flag: bool, scale: float, mask: Any = None, *, mode: str) -> Tensor:
                return self.linear(x) * scale if flag and mode == "b" and mask is None else x

        module, x = Module(), torch.randn(2, 4)
        dims = {"x": {0: Dim("batch", min=1, max=16)}, "flag": None, "scale": None, "mask": None, "mode": None}
        compiled = compile_for_test(exported(module, x, True, 2.0, None, mode="b", dims=dims))
        torch.testing.assert_close(compiled(x, True, 2.0, None, mode="b"), module.linear(x) * 2)
        assert (
            saved_and_loaded(compiled).call_spec.in_spec
            == exported(module, x, True, 2.0, None, mode="b", dims=dims).call_spec.in_spec
        )

    def test_returned_buffer(self) -> None:
        """A buffer that forward returns is saved with the program."""

        class Module(Small):
            def forward(self, x: Tensor) -> Any:
                return self.linear(x), self.anchors

        module, x = Module(), torch.randn(2, 4)
        compiled = compile_for_test(exported(module, x))
        check_against_eager(module, compiled, x)
        assert saved_and_loaded(compiled).graph_signature.buffers

    def test_data_dependent_size(self) -> None:
        """A size that depends on the data keeps its range, without which the program does not load."""

        class Module(Small):
            def forward(self, x: Tensor) -> Any:
                y = self.linear(x)
                return y[y.sum(-1) > 0], y

        compiled = compile_for_test(exported(Module(), torch.randn(8, 4)))
        assert len(saved_and_loaded(compiled).range_constraints) == 2

    def test_complex_numbers_inside(self) -> None:
        """A Fourier transform stays in PyTorch, with engines after it; before 2.14 it is refused."""

        class Module(Small):
            def forward(self, x: Tensor) -> Tensor:
                return self.linear(torch.fft.rfft(x).abs()[:, :4])

        module, x = Module(), torch.randn(2, 64)
        if not upstream().takes_complex_numbers:
            with pytest.raises(CompileError, match=r"complex numbers \(aten\._fft_r2c.*2\.14 or newer"):
                compile_for_test(exported(module, x))
            return
        compiled = compile_for_test(exported(module, x))
        assert "aten._fft_r2c.default" in compiled.compiled.fallback_ops
        check_against_eager(module, compiled, x)

    @pytest.mark.skipif(not upstream().takes_complex_numbers, reason="all complex numbers are refused before 2.14")
    def test_complex_numbers_that_cannot_be_lowered(self) -> None:
        """A pass of upstream's that fails on complex numbers leaves them to PyTorch, between engines."""

        class Module(Small):
            def forward(self, x: Tensor) -> Tensor:
                weight = self.linear.weight[0, :3].to(torch.complex64)
                return torch.fft.irfft(torch.fft.rfft(self.linear(x)) * weight)

        module, x = Module(), torch.randn(2, 4)
        compiled = compile_for_test(exported(module, x))
        assert "aten._fft_r2c.default" in compiled.compiled.fallback_ops
        check_against_eager(module, compiled, x)


class TestRanges:
    """Dynamic dimensions stay what they were."""

    @pytest.mark.parametrize("traced", [2, 16])
    def test_convolution_keeps_the_batch_range(self, traced: int) -> None:
        """The CPU's choice of a convolution kernel (other below and from 16) leaves no trace in the range."""
        module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        compiled = compile_for_test(exported(module, torch.randn(traced, 3, 8, 8)))
        (bounds,) = compiled.compiled.program.range_constraints.values()
        assert (bounds.lower, bounds.upper) == (1, 16)

    def test_batch_norm_in_train_mode_is_refused(self) -> None:
        """BatchNorm in train mode writes its statistics, which an engine would drop."""
        module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
        with pytest.raises(CompileError, match=r"1\.running_mean, 1\.running_var"):
            compile_for_test(exported(module, torch.randn(2, 3, 8, 8)))

    def test_dimension_lost_in_lowering_is_refused(self) -> None:
        """A dynamic dimension that lowering fixed (as CPU decompositions did) is noticed, not compiled."""
        module, x = nn.Linear(4, 4), torch.randn(2, 4)
        fixed = torch.export.export(module, (x,), strict=False).module()
        with pytest.raises(CompileError, match=r"fixed the dynamic dimension 0 of input input at 2"):
            refuse_lost_dimensions(exported(module, x), fixed)

    def test_symbol_that_lowering_tied_to_a_number_is_refused(self) -> None:
        """A guard leaves the symbol where it was and makes it one number (complex numbers beside a resize do)."""
        module, x = nn.Linear(4, 4), torch.randn(2, 4)
        program = exported(module, x)
        (size, _) = next(n.meta["val"].shape for n in program.graph.nodes if n.name == "input")
        assert size == 2, "which is the guard"
        with pytest.raises(CompileError, match=r"fixed the dynamic dimension 0 of input input at 2"):
            refuse_lost_dimensions(program, program.module())

    def test_range_narrowed_in_lowering_is_refused(self) -> None:
        """A range that lowering narrowed (as convolution heuristics do on some processors) is noticed."""
        module, x = nn.Linear(4, 4), torch.randn(2, 4)
        program = exported(module, x)
        wider = next(iter(program.range_constraints))
        program.range_constraints[wider] = ValueRanges(1, 32)
        with pytest.raises(CompileError, match=r"narrowed dimension 0 of input input from 1\.\.32 to 1\.\.16"):
            refuse_lost_dimensions(program, program.module())

    def test_size_crosses_from_engine_to_engine(self) -> None:
        """A symbolic size used on both sides of an operator that stays in PyTorch is computed again on each side."""

        class Module(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x: Tensor) -> Tensor:
                batch, length, _ = x.shape
                flat = self.first(x).reshape(batch * length, 8)
                values = torch.linalg.svdvals(flat.unsqueeze(-1))
                return self.second(flat + values).reshape(batch, length, 8) * (batch + 2 * length)

        module, x = Module(), torch.randn(2, 6, 8)
        batch, length = Dim("batch", min=1, max=16), Dim("length", min=2, max=32)
        compiled = compile_for_test(exported(module, x, dims=({0: batch, 1: length},)))
        assert len(compiled.compiled.engines) == 2
        check_against_eager(module, compiled, x)
        saved_and_loaded(compiled)

    def test_names_do_not_decide_what_an_argument_is(self) -> None:
        """What stays in PyTorch gets its arguments by position, whatever nodes of the same names there are."""

        class Inner(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.full((4,), 3.0))

            def forward(self, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
                return b - a, a * self.scale

        class Outer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = torch.fx.symbolic_trace(Inner())

            def forward(self, a: Tensor, b: Tensor) -> Tensor:
                first, second = self.inner(a, b)
                return first + second

        class Whole(torch.fx.Tracer):
            def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
                return True

        outer = Outer()
        graph = torch.fx.GraphModule(outer, Whole().trace(outer))
        a, b = torch.rand(4), torch.rand(4)
        wanted = graph(a, b)
        inline_modules(graph)
        graph.graph.lint()
        graph.recompile()
        assert {node.op for node in graph.graph.nodes} == {"placeholder", "get_attr", "call_function", "output"}
        torch.testing.assert_close(graph(a, b), wanted)

    def test_multiple_of_a_symbol(self) -> None:
        """A height of 8, 16, 24, ... keeps its step on the other side of an engine's border."""

        class Module(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.down, self.up = nn.Conv2d(1, 2, 8, stride=8), nn.Conv2d(2, 1, 1)

            def forward(self, x: Tensor) -> Tensor:
                small = self.down(x)
                small = small + torch.linalg.svdvals(small.flatten(1).unsqueeze(-1)).unsqueeze(-1).unsqueeze(-1)
                return self.up(small.reshape(x.shape[0], 2, x.shape[2] // 8, -1))

        module, x = Module(), torch.randn(2, 1, 24, 16)
        batch, step = Dim("batch", min=1, max=16), Dim("step", min=1, max=8)
        compiled = compile_for_test(exported(module, x, dims=({0: batch, 2: 8 * step},)))
        assert len(compiled.compiled.engines) == 2
        check_against_eager(module, compiled, x)


class TestRefused:
    """A wrong artifact is worse than none."""

    def test_mutated_buffer(self) -> None:
        """An update of a buffer would be frozen and dropped: refused, with the buffer's name."""

        class Module(Small):
            def forward(self, x: Tensor) -> Tensor:
                self.count.add_(1)
                return self.linear(x) + self.count

        with pytest.raises(CompileError, match=r"writes to the buffer count.*dropped in silence"):
            compile_for_test(exported(Module(), torch.randn(2, 4)))

    def test_mutated_input(self) -> None:
        """An input that forward writes to is refused, with its name."""

        class Module(Small):
            def forward(self, x: Tensor) -> Tensor:
                return self.linear(x.add_(1))

        with pytest.raises(CompileError, match="writes to the input x in place"):
            compile_for_test(exported(Module(), torch.randn(2, 4)))

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_states_of_an_lstm(self, batch_first: bool) -> None:
        """They have the right number of dimensions, which PyTorch before 2.13 captures with one more."""

        class Module(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=batch_first)

            def forward(self, x: Tensor) -> Any:
                return self.lstm(x)[1][0]

        module, x = Module().eval(), torch.randn(4, 4, 8)
        with recurrent_nets_kept_whole():
            program = exported(module, x, dims=({0 if batch_first else 1: Dim("batch", min=1, max=16)},))
        with torch.no_grad():
            wanted = module(x)
        torch.testing.assert_close(compile_for_test(program)(x), wanted, rtol=1e-4, atol=1e-5)

    def test_output_changed_in_lowering(self) -> None:
        """An output with another shape after lowering is noticed, not compiled."""
        module, x = nn.Linear(4, 4), torch.randn(2, 4)
        flat = torch.export.export(nn.Sequential(nn.Linear(4, 4), nn.Flatten(0)), (x,), strict=False).module()
        with pytest.raises(CompileError, match="lowering changed output 0"):
            refusals.refuse_changed_outputs(exported(module, x), flat)

    def test_float64(self) -> None:
        """TensorRT has no float64, and truncating it unasked would be a surprise."""
        with pytest.raises(CompileError, match=r"is float64.*module\.float\(\)"):
            compile_for_test(exported(nn.Linear(4, 4).double(), torch.randn(2, 4, dtype=torch.float64)))

    def test_nothing_to_compute(self) -> None:
        """Zero engines are an error, not a file: nothing is computed."""
        with pytest.raises(CompileError, match="computes nothing"):
            compile_for_test(exported(nn.Identity(), torch.randn(2, 4)))

    def test_everything_assigned(self) -> None:
        """A constant beside what an engine computes is an output like others; alone it is nothing to compute."""

        class Module(nn.Module):
            def __init__(self, both: bool) -> None:
                super().__init__()
                self.both = both

            def forward(self, x: Tensor) -> Any:
                y = x.clone()
                y[:] = 0.0
                return (y * 1, x * 2) if self.both else y * 1

        x = torch.randn(2, 4)
        with pytest.raises(CompileError, match=r"outputs are its inputs or constants.*\(x\[:\] = 0\.0\)"):
            compile_for_test(exported(Module(False), x, dims=(None,)))
        evaluated = compile_evaluated(exported(Module(True), x, dims=(None,)))
        torch.testing.assert_close(evaluated(x), Module(True)(x))

    @pytest.mark.parametrize("how", ["split", "made"])
    def test_size_that_depends_on_values(self, how: str) -> None:
        """No shape has it, so what takes it as a number stays in PyTorch; the rest is an engine."""

        class Module(nn.Module):
            def forward(self, x: Tensor, places: Tensor) -> Tensor:
                if how == "split":
                    return torch.tensor_split(x, places)[0] * 2
                rows = places.max().item() + 1
                torch._check(rows > 0)
                return torch.zeros(rows, 3).index_add_(0, places, x[:2] * 2) + 1

        module, x, places = Module(), torch.randn(10, 3), torch.tensor([2, 5])
        evaluated = compile_evaluated(exported(module, x, places, dims=(None, None)))
        assert torch.equal(evaluated(x, places), module(x, places))
        assert {"split": "aten.slice.Tensor", "made": "aten.full.default"}[how] in evaluated.compiled.fallback_ops

    def test_nothing_for_tensorrt(self) -> None:
        """Zero engines are an error, not a file: TensorRT has none of the operators."""

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.linalg.svdvals(x)

        with pytest.raises(CompileError, match=r"no engine in the artifact.*aten\._linalg_svd"):
            compile_for_test(exported(Module(), torch.randn(2, 4, 4)))

    def test_blocks_too_small(self) -> None:
        """With a min_block_size beyond the model there is no engine: an error that says the number."""
        with pytest.raises(CompileError, match="min_block_size=50"):
            compile_for_test(exported(nn.Linear(4, 4), torch.randn(2, 4)), min_block_size=50)

    def test_full_compilation_that_cannot_be(self) -> None:
        """require_full_compilation names the operators in its way."""

        class Module(Small):
            def forward(self, x: Tensor) -> Tensor:
                return self.linear(x) + torch.linalg.svdvals(x.unsqueeze(-1))

        with pytest.raises(CompileError, match=r"require_full_compilation=True.*_linalg_svd"):
            compile_for_test(exported(Module(), torch.randn(2, 4)), compile_options={"require_full_compilation": True})


class TestFallback:
    """What TensorRT cannot take runs in PyTorch and is listed."""

    def test_operator_without_converter_is_listed(self) -> None:
        """The operators left to PyTorch are in the result, in order, each once."""

        class Module(Small):
            def forward(self, x: Tensor) -> Tensor:
                y = self.linear(x)
                return self.linear(y + torch.linalg.svdvals(y.unsqueeze(-1)))

        module, x = Module(), torch.randn(2, 4)
        compiled = compile_for_test(exported(module, x))
        assert compiled.compiled.fallback_ops == ("aten._linalg_svd.default",)
        assert len(compiled.compiled.engines) == 2
        check_against_eager(module, compiled, x)

    def test_converter_that_fails_leaves_one_node_to_pytorch(self) -> None:
        """A bilinear resize to a dynamic size stays in PyTorch, one to a static size does not, and a note says so."""

        class Module(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(1, 1, 3, padding=1)

            def forward(self, x: Tensor) -> Tensor:
                small = nn.functional.interpolate(self.conv(x), size=(8, 8), mode="bilinear")
                return self.conv(nn.functional.interpolate(small, size=x.shape[-2:], mode="bilinear"))

        module, x = Module(), torch.randn(2, 1, 16, 24)
        batch, height = Dim("batch", min=1, max=16), Dim("height", min=8, max=64)
        compiled = compile_for_test(exported(module, x, dims=({0: batch, 2: height},)))
        assert compiled.compiled.fallback_ops == ("aten.upsample_bilinear2d.vec",)
        (note,) = compiled.compiled.notes
        assert note.startswith("One use of aten.upsample_bilinear2d.vec (test_compiler.py:")
        kept = [n for n in compiled.compiled.program.graph.nodes if "upsample" in str(n.target)]
        assert len(kept) == 1
        check_against_eager(module, compiled, x)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_batch_norm_over_any_length(self, dtype: torch.dtype) -> None:
        """It is inside the engine: upstream's converter wants to know the length, and is not asked."""
        module = nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.BatchNorm1d(8, affine=False)).eval()
        for norm in (module[1], module[3]):
            assert isinstance(norm, nn.BatchNorm1d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 1e-3, 2)
        module, x = module.to(dtype), torch.randn(2, 3, 24).to(dtype)
        batch, length = Dim("batch", min=1, max=16), Dim("length", min=8, max=64)
        compiled = compile_for_test(exported(module, x, dims=({0: batch, 2: length},)))
        assert (len(compiled.compiled.engines), compiled.compiled.fallback_ops) == (1, ())
        if dtype is torch.float32:
            check_against_eager(module, compiled, x)
        else:
            torch.testing.assert_close(compiled(x), module(x), rtol=5e-3, atol=5e-3)

    def test_attention_stays_whole(self) -> None:
        """Attention is one engine, not an operator that only CPUs have."""

        class Module(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

            def forward(self, x: Tensor) -> Tensor:
                return self.attention(x, x, x, need_weights=False)[0]

        module, x = Module().eval(), torch.randn(2, 5, 16)
        compiled = compile_for_test(exported(module, x))
        assert (len(compiled.compiled.engines), compiled.compiled.fallback_ops) == (1, ())
        check_against_eager(module, compiled, x)

    def test_parts_in_pytorch_are_labelled_for_the_gpu(self) -> None:
        """Weights and device arguments of what stays in PyTorch say cuda:0, where the engines are."""

        class Module(Small):
            def forward(self, x: Tensor) -> Tensor:
                rows = torch.arange(x.shape[0], device=x.device)
                y = self.linear(x) + rows.unsqueeze(-1)
                return torch.linalg.svdvals(y.unsqueeze(-1)) + torch.linalg.svdvals(self.anchors)[0]

        options = {"torch_executed_ops": ["torch.ops.aten.linear.default", "torch.ops.aten.arange.start_step"]}
        compiled = compile_for_test(exported(Module(), torch.randn(2, 4)), compile_options=options)
        documents = [json.loads(text) for name, text in members(compiled).items() if name.endswith(".json")]
        devices = [d for document in documents for d in find(document, {"type", "index"})]
        assert devices
        assert all(device == {"type": "cuda", "index": 0} for device in devices)


class TestEngines:
    """What the engines and their records say."""

    def test_default_targets(self) -> None:
        """By default engines run on Ampere and newer, also on GPUs to come, and the record lets any of them pass."""
        compiled = compile_for_test(exported(nn.Linear(4, 4), torch.randn(2, 4))).compiled
        assert compiled.compute_capabilities[0] == "8.0"
        assert compiled.compute_capabilities[-1] == "newer"
        node = engine_node(compiled.program)
        assert "0%8%0%0%NVIDIA" in node.args
        assert "windows_x86_64" in node.args

    def test_turing_on_request(self) -> None:
        """A list of compute capabilities is exactly what the engine is built for."""
        compiled = compile_for_test(
            exported(nn.Linear(4, 4), torch.randn(2, 4)), compute_capabilities=("7.5", "8.9")
        ).compiled
        assert compiled.compute_capabilities == ("7.5", "8.9")
        assert "0%7%5%0%NVIDIA" in engine_node(compiled.program).args

    def test_unknown_target(self) -> None:
        """A compute capability that TensorRT-RTX does not know is refused with those it knows."""
        with pytest.raises(ConfigurationError, match=r"6\.1.*it knows 7\.5, 8\.0"):
            get_backend("auto").check(ExportSettings(compute_capabilities=("6.1",)))

    def test_another_tensorrt_rtx_than_asked_for(self) -> None:
        """Refused before anything is compiled, with what installs it; a part of the version is enough."""
        backend = get_backend("tensorrt_rtx")
        installed = version("tensorrt-rtx")
        for wanted in (installed, installed.rpartition(".")[0], ".".join(installed.split(".")[:2])):
            backend.check(ExportSettings(tensorrt_rtx=wanted))
        blocks = upstream()
        tried = BUILDS_WITH[minor(blocks.version)]
        other = next((v for v in tried if v != installed), "9.1.*")
        with pytest.raises(EnvironmentMismatchError, match=f"{installed}, which is.*pip install tensorrt-rtx=={other}"):
            backend.check(ExportSettings(tensorrt_rtx=".".join(other.split(".")[:2])))
        old = dataclasses.replace(blocks, version="2.12.1")
        with pytest.raises(
            EnvironmentMismatchError, match=r"2\.12\.1 was seen to build with 1\.4\.0\.76, and not with 1\.7"
        ):
            _check_version(old, "1.7")
        with pytest.raises(EnvironmentMismatchError, match=r"tensorrt-rtx==0\.9\.\* .*was seen to build"):
            backend.check(ExportSettings(tensorrt_rtx="0.9"))

    def test_same_program_same_bytes(self) -> None:
        """Building again gives the same engine; now and then its inner names are ordered otherwise, so try again."""
        torch.manual_seed(0)
        module, x = nn.Linear(4, 4), torch.randn(2, 4)
        plans = [bytes(next(iter(compile_for_test(exported(module, x)).compiled.engines.values())).plan)]
        for _ in range(3):
            plans.append(bytes(next(iter(compile_for_test(exported(module, x)).compiled.engines.values())).plan))
            if plans[-1] in plans[:-1]:
                return
        pytest.fail("four builds of one program gave four engines")

    def test_header(self) -> None:
        """The header gives TensorRT-RTX's version and the engine's size; other bytes give nothing."""
        compiled = compile_for_test(exported(nn.Linear(4, 4), torch.randn(2, 4))).compiled
        (engine,) = compiled.engines.values()
        header = read_header(engine.plan)
        assert header is not None
        assert header.size == engine.plan.nbytes
        assert ".".join(map(str, header.version)) == compiled.versions["tensorrt-rtx"]
        assert read_header(b"not an engine" * 10) is None
        assert read_header(b"vtrt") is None

    def test_no_file_names_of_this_machine(self) -> None:
        """The archive does not say where the module's source lies."""
        for text in members(compile_for_test(exported(nn.Linear(4, 4), torch.randn(2, 4)))).values():
            assert b"/site-packages/" not in text
            assert b"test_compiler" not in text


class TestOptions:
    """compile_options are checked against the installed upstream."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"optimisation_level": 3}, "not an option of Torch-TensorRT"),
            ({"truncate_doubel": True}, "did you mean 'truncate_double'"),
            ({"optimization_level": 5}, "TensorRT-RTX ignores it"),
            ({"lazy_engine_init": True}, "cross compilation for Windows cannot use it"),
            ({"enable_cross_compile_for_windows": True}, "every artifact is for Windows"),
            ({"immutable_weights": False}, "returns no engine"),
        ],
    )
    def test_refused(self, options: dict[str, Any], message: str) -> None:
        """An unknown or ignored key is an error with the near matches or the reason."""
        with pytest.raises(ConfigurationError, match=message):
            get_backend("auto").check(ExportSettings(compile_options=options))

    def test_every_problem_at_once(self) -> None:
        """All offending keys are in one message."""
        with pytest.raises(ConfigurationError, match=r"(?s)optimization_level.*nonsense"):
            get_backend("auto").check(ExportSettings(compile_options={"optimization_level": 5, "nonsense": 1}))

    def test_recorded(self) -> None:
        """Options that were passed on are in the result, which becomes the manifest."""
        compiled = compile_for_test(
            exported(nn.Linear(4, 4), torch.randn(2, 4)), compile_options={"workspace_size": 1 << 28}
        ).compiled
        assert compiled.options == {"min_block_size": 1, "workspace_size": 1 << 28}


def engine_node(program: ExportedProgram) -> torch.fx.Node:
    """The first node that stands for an engine."""
    return next(node for node in program.graph.nodes if "no_op_placeholder" in str(node.target))


def saved_and_loaded(compiled: Simulated) -> ExportedProgram:
    """The program after a round trip through torch's own save and load."""
    buffer = io.BytesIO()
    torch.export.save(compiled.compiled.program, buffer)
    buffer.seek(0)
    return torch.export.load(buffer)


def members(compiled: Simulated) -> dict[str, bytes]:
    """The members of the archive that our writer makes."""
    saved, out = io.BytesIO(), io.BytesIO()
    torch.export.save(compiled.compiled.program, saved)
    join_payloads(saved, out, {token: engine.plan for token, engine in compiled.compiled.engines.items()})
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def find(value: Any, keys: set[str]) -> list[dict[str, Any]]:
    """Every dict in ``value`` with exactly these keys."""
    found = [value] if isinstance(value, dict) and set(value) == keys else []
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [hit for child in children for hit in find(child, keys)]


def test_additions_at_indices_stay_in_pytorch(tmp_path: Path) -> None:
    """Indices that repeat: no converter of any supported Torch-TensorRT builds what a Windows machine could run."""

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor, target: Tensor) -> Tensor:
            h = self.linear(x).relu()
            return self.linear(torch.zeros_like(h).index_add(0, target, h))

    inputs = {"x": InputSpec((DimRange(2, 4, 8), 4)), "target": InputSpec((DimRange(2, 4, 8),), "int64")}
    artifact = export_module(Sums(), inputs, tmp_path / "m.windows.ep")
    assert "aten.index_put.default" in artifact.manifest.fallback_ops


def test_profiles_reach_what_was_asked_for(tmp_path: Path) -> None:
    """The smallest sizes of what is computed of symbols: multiples, and products that cross into an engine."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.first(x).relu().flatten(0, 1)
            in_torch = torch.linalg.svdvals(rows.reshape(-1, 2, 4) + 0.1).sum(-1, keepdim=True)
            return (self.second(rows) * in_torch).reshape(x.shape[0], x.shape[1], 4)

    shape = (DimRange(1, 8, 32, name="batch"), DimRange(4, 16, 64, name="length", multiple_of=4), 4)
    profiles: dict[str, Any] = {}
    blocks = upstream()
    interpreter = blocks.TRTInterpreter.__init__

    def recording(self: Any, graph: Any, inputs: Any, **rest: Any) -> None:
        profiles.update({given.name: given.shape for given in inputs})
        interpreter(self, graph, inputs, **rest)

    with mock.patch.object(blocks.TRTInterpreter, "__init__", recording):
        artifact = export_module(Reader().eval(), {"x": InputSpec(shape)}, tmp_path / "m.windows.ep")
    assert len(artifact.manifest.engines) == 2
    assert profiles["x"]["min_shape"] == (1, 4, 4)
    assert profiles["x"]["max_shape"] == (32, 64, 4)
    rows = [found for found in profiles.values() if isinstance(found, dict) and len(found["min_shape"]) == 2]
    assert rows and all(found["min_shape"][0] == 4 and found["max_shape"][0] == 32 * 64 for found in rows)
