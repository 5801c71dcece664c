"""``precision`` on real TensorRT-RTX engines: types in and out, error against eager, size, what stays float32."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.simulation import Simulated, compile_for_test
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from zoo.sequences import Codec

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.backends.precision_rules import Rule, fits, loses_little, rule_of
from lightning_trt_windows.errors import CompileError, ConfigurationError
from lightning_trt_windows.export.pipeline import export_module
from lightning_trt_windows.settings import ExportSettings

ERROR = {"16": 2e-3, "bf16": 1e-2, "32": 1e-5}
"""Largest relative norm of the error against eager float32."""
DTYPES = {"16": torch.float16, "bf16": torch.bfloat16}
LOWER = pytest.mark.parametrize("precision", ["16", "bf16"])


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def compiled(module: nn.Module, *args: Tensor, precision: Any, **settings: Any) -> Simulated:
    """``module`` with a batch of 1 to 16 in axis 0 of every input."""
    batch = Dim("batch", min=1, max=16)
    dims = tuple({0: batch} for _ in args)
    program = torch.export.export(module.eval(), args, dynamic_shapes=dims, strict=False)
    return compile_for_test(program, precision=precision, **settings)


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative norm."""
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def check(module: nn.Module, simulated: Simulated, *args: Tensor, limit: float) -> None:
    """What comes out is of eager's types and close to eager, at the traced batch and at a batch of one."""
    for batch in (args[0].shape[0], 1):
        inputs = tuple(a[:batch] for a in args)
        with torch.no_grad():
            wanted = tree_leaves(copy.deepcopy(module)(*inputs))
        for result, expected in zip(tree_leaves(simulated(*inputs)), wanted, strict=True):
            if expected.is_floating_point():
                assert error(result, expected) <= limit
            else:
                assert result.dtype == expected.dtype
                assert torch.equal(result, expected)


def computed_in(simulated: Simulated, operator: str) -> set[torch.dtype]:
    """The types of the results of all nodes of ``operator`` in the engines."""
    return {
        tree_leaves(node.meta["val"])[0].dtype
        for graph in simulated.partitions.values()
        for node in graph.graph.nodes
        if str(node.target) == f"aten.{operator}"
    }


def plan_bytes(simulated: Simulated) -> int:
    """Size of all engines."""
    return sum(engine.plan.nbytes for engine in simulated.compiled.engines.values())


class Recurrent(nn.Module):
    """Two layers, both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    """Embedding, and attention with a padding mask of the lowest number: once by hand, once whole."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(100, 32), nn.Linear(32, 32)

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        x = self.embedding(ids)
        scores = self.linear(x) @ x.transpose(1, 2) / 32**0.5
        y = scores.masked_fill(mask[:, None] == 0, torch.finfo(scores.dtype).min).softmax(-1) @ x
        bias = (1.0 - mask[:, None, None].float()) * torch.finfo(torch.float32).min
        heads = y.unflatten(-1, (4, 8)).transpose(1, 2)
        z = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
        infinite = torch.zeros_like(mask[:, None, None], dtype=z.dtype).masked_fill(
            mask[:, None, None] == 0, -torch.inf
        )
        return y, z, (scores + infinite[:, 0])[:1].softmax(-1)


class TestModels:
    """Whole models: types, error, one engine, size."""

    @LOWER
    def test_mlp(self, precision: str) -> None:
        """Half the weights, float32 in and out."""
        module = nn.Sequential(nn.Linear(64, 1024), nn.GELU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 8))
        x = torch.randn(4, 64)
        simulated = compiled(module, x, precision=precision)
        check(module, simulated, x, limit=ERROR[precision])
        assert computed_in(simulated, "linear.default") == {DTYPES[precision]}
        assert plan_bytes(simulated) < 0.6 * plan_bytes(compiled(module, x, precision=None))

    @LOWER
    def test_resnet(self, precision: str) -> None:
        """One engine, whose convolutions and normalisations are of one type; its mean is float32."""
        torchvision = pytest.importorskip("torchvision")
        module, x = torchvision.models.resnet18(), torch.randn(2, 3, 64, 64)
        simulated = compiled(module, x, precision=precision)
        check(module, simulated, x, limit=ERROR[precision])
        assert len(simulated.compiled.engines) == 1
        assert simulated.compiled.fallback_ops == ()
        normalised = computed_in(simulated, "_native_batch_norm_legit_no_training.default")
        assert normalised == computed_in(simulated, "convolution.default") == {DTYPES[precision]}
        assert computed_in(simulated, "mean.dim") == {torch.float32}
        assert plan_bytes(simulated) < 0.55 * plan_bytes(compiled(module, x, precision=None))

    @LOWER
    def test_vision_transformer(self, precision: str) -> None:
        """Attention in the low precision, LayerNorm in float32; as close to eager as autocast is."""
        timm = pytest.importorskip("timm")
        module = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=10)
        x = torch.randn(2, 3, 64, 64)
        simulated = compiled(module, x, precision=precision)
        with torch.no_grad():
            wanted = copy.deepcopy(module)(x)
            with torch.autocast("cpu", DTYPES[precision]):
                limit = 1.2 * error(copy.deepcopy(module)(x).float(), wanted)
        assert error(simulated(x), wanted) <= limit <= 1.5 * ERROR[precision]
        assert simulated(x[:1]).shape == (1, 10)
        assert len(simulated.compiled.engines) == 1
        assert computed_in(simulated, "scaled_dot_product_attention.default") == {DTYPES[precision]}
        assert computed_in(simulated, "native_layer_norm.default") == {torch.float32}

    @LOWER
    def test_lstm(self, precision: str) -> None:
        """An LSTM, with its first state, is one engine, whose matrix products are of the low precision."""
        module, x = Recurrent(), torch.randn(3, 4, 8)
        simulated = compiled(module, x, precision=precision)
        check(module, simulated, x, limit=ERROR[precision])
        assert len(simulated.compiled.engines) == 1
        for operator in ("lstm.input", "linear.default"):
            assert computed_in(simulated, operator) == {DTYPES[precision]}

    @LOWER
    def test_embedding_and_masks(self, precision: str) -> None:
        """The lowest float32 and minus infinity in masks become no NaN, also where a whole row is masked."""
        module, ids = Attention(), torch.randint(0, 100, (2, 5))
        mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
        simulated = compiled(module, ids, mask, precision=precision)
        check(module, simulated, ids, mask, limit=ERROR[precision])
        assert computed_in(simulated, "embedding.default") == {DTYPES[precision]}

    def test_large_activations(self) -> None:
        """A sum and a variance far beyond float16's largest number."""

        class Large(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear, self.norm = nn.Linear(64, 512), nn.LayerNorm(512)

            def forward(self, x: Tensor) -> Any:
                y = self.linear(x)
                squares = y.pow(2).mean(-1, keepdim=True) + 1e-6
                return (
                    self.norm(y),
                    y.softmax(-1),
                    y.sum(-1),
                    y * y,
                    y * squares.rsqrt(),
                    y.logsumexp(-1),
                    y.norm(dim=-1),
                )

        module, x = Large(), torch.randn(2, 64) * 1000
        with torch.no_grad():
            module.linear.bias += 500
        check(module, compiled(module, x, precision="16"), x, limit=ERROR["16"])
        with torch.no_grad():
            assert not copy.deepcopy(module).half()(x.half())[2].isfinite().all(), "float16 alone can do it"

    @LOWER
    def test_parts_that_stay_in_pytorch(self, precision: str) -> None:
        """An operator of no list computes in what it was captured with; sizes of the data may follow."""

        class Parts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x: Tensor) -> Any:
                y = self.first(x)
                values = torch.linalg.svdvals(y.unsqueeze(-1))
                return self.second(y + values), y[x.sum(-1) > 0]

        module, x = Parts(), torch.randn(4, 8)
        x[0] = 1.0
        simulated = compiled(module, x, precision=precision)
        assert "aten._linalg_svd.default" in simulated.compiled.fallback_ops
        check(module, simulated, x, limit=ERROR[precision])

    def test_weights_of_parts_that_stay_in_pytorch(self) -> None:
        """They are saved in the low precision, and only so."""
        module, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8), nn.Tanh()), torch.randn(4, 8)
        options = {"torch_executed_ops": ["torch.ops.aten.linear.default"]}
        simulated = compiled(module, x, precision="16", compile_options=options)
        check(module, simulated, x, limit=ERROR["16"])
        assert {weight.dtype for weight in simulated.compiled.program.state_dict.values()} == {torch.float16}
        assert len(simulated.compiled.program.state_dict) == 4


class TestTransposed:
    """TensorRT-RTX builds no transposed convolution in bfloat16: it computes in float32, inside the engine."""

    @LOWER
    def test_codec(self, precision: str) -> None:
        """One that goes up with two of them, and the normalisation and activations around them as ever."""
        module, x = Codec(), torch.randn(2, 1, 523)
        simulated = compiled(module, x, precision=precision)
        check(module, simulated, x, limit=ERROR[precision])
        both = {torch.float32, DTYPES[precision]} if precision == "bf16" else {DTYPES[precision]}
        assert computed_in(simulated, "convolution.default") == both
        assert "aten.convolution.default" not in simulated.compiled.fallback_ops

    @pytest.mark.parametrize("make", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
    def test_modules_in_bfloat16(self, make: Any) -> None:
        """Without a precision too: the types of the module outside, float32 inside, and the same weights twice."""
        up = make(8, 8, 3)
        module = nn.Sequential(make(4, 8, 2, 2, bias=False), nn.ReLU(), up, up).to(torch.bfloat16)
        x = torch.randn(2, 4, *[6] * (up.weight.dim() - 2)).to(torch.bfloat16)
        simulated = compiled(module, x, precision=None)
        check(module, simulated, x, limit=ERROR["bf16"])
        assert computed_in(simulated, "convolution.default") == {torch.float32}
        assert computed_in(simulated, "relu.default") == {torch.bfloat16}
        assert simulated.compiled.fallback_ops == ()


class TestBatchNorm:
    """A normalisation goes with what it normalises."""

    @LOWER
    def test_statistics_that_do_not_exist_in_float16(self, precision: str) -> None:
        """A variance of 1e6 and one of 1e-10, whose scale and shift do."""
        module = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2))
        module[1].running_var.copy_(torch.tensor([1e6, 1e-10]))
        module[1].running_mean.copy_(torch.tensor([3.0, 1e-4]))
        x = torch.randn(2, 3, 8, 8)
        simulated = compiled(module, x, precision=precision)
        assert len(simulated.compiled.engines) == 1
        assert computed_in(simulated, "_native_batch_norm_legit_no_training.default") == {DTYPES[precision]}
        check(module, simulated, x, limit=ERROR[precision])

    def test_a_scale_that_does_not_exist_in_float16(self) -> None:
        """The normalisation stays in float32."""
        module = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2, affine=False))
        module[1].running_var.fill_(1e-12)
        module[1].eps = 1e-12
        module[0].weight.data.mul_(1e-3)
        x = torch.randn(2, 3, 8, 8)
        simulated = compiled(module, x, precision="16")
        assert computed_in(simulated, "_native_batch_norm_legit_no_training.default") == {torch.float32}
        check(module, simulated, x, limit=ERROR["16"])

    def test_an_input_that_is_normalised_first(self) -> None:
        """It has its own type, which is kept: it may hold anything."""
        module, x = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4)), torch.randn(4, 8) * 1e6
        module[0].running_var.fill_(1e12)
        simulated = compiled(module, x, precision="16")
        assert computed_in(simulated, "_native_batch_norm_legit_no_training.default") == {torch.float32}
        check(module, simulated, x, limit=ERROR["16"])


class TestTypes:
    """What goes in and comes out, and what was another type before."""

    @LOWER
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_inputs_and_outputs_keep_their_types(self, precision: str, dtype: torch.dtype) -> None:
        """Also of modules in half precision and in float64, which TensorRT does not have."""
        module = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 4)).to(dtype)
        x = torch.randn(2, 16, dtype=dtype)
        simulated = compiled(module, x, precision=precision)
        assert len(simulated.compiled.engines) == 1
        check(module, simulated, x, limit=1e-2)
        assert simulated.compiled.options["precision"] == precision

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_float32_inside(self, dtype: torch.dtype) -> None:
        """``"32"`` computes in float32 whatever the weights are; closer to float64 than the module itself."""
        module = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Softmax(-1), nn.Linear(32, 4)).to(dtype)
        x = torch.randn(2, 16, dtype=dtype)
        simulated = compiled(module, x, precision="32")
        assert computed_in(simulated, "linear.default") == {torch.float32}
        with torch.no_grad():
            exact = copy.deepcopy(module).double()(x.double()).to(dtype)
        assert error(simulated(x), exact) <= {torch.float64: 1e-6}.get(dtype, torch.finfo(dtype).eps)
        casts = ("aten._to_copy.default",) if dtype == torch.float64 else ()
        assert simulated.compiled.fallback_ops == casts

    def test_float64_between_engines_only(self) -> None:
        """The casts of float64 are PyTorch's: an engine has no float64 at its border."""
        module, x = nn.Linear(4, 4).double(), torch.randn(2, 4, dtype=torch.float64)
        simulated = compiled(module, x, precision="32")
        (graph,) = simulated.partitions.values()
        assert {n.meta["val"].dtype for n in graph.graph.nodes if n.op != "output"} == {torch.float32}
        with pytest.raises(CompileError, match="require_full_compilation"):
            compiled(module, x, precision="32", compile_options={"require_full_compilation": True})

    def test_none_changes_nothing(self) -> None:
        """The weights' own type, and no word of it in the manifest."""
        module, x = nn.Linear(4, 4).half(), torch.randn(2, 4).half()
        simulated = compiled(module, x, precision=None)
        assert computed_in(simulated, "linear.default") == {torch.float16}
        assert "precision" not in simulated.compiled.options

    def test_integers_and_booleans(self) -> None:
        """They are not touched, and numbers beyond 2048 among them do not meet float16."""

        class Integers(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: Tensor, i: Tensor) -> Any:
                y = self.linear(x)
                return y * i, i + 1, i > 40000, y * x.shape[0], x

        module, x, i = Integers(), torch.randn(2, 8), torch.tensor([[65001], [70001]])
        check(module, compiled(module, x, i, precision="16"), x, i, limit=ERROR["16"])

    def test_float32_that_the_module_asks_for(self) -> None:
        """A cast in forward is obeyed."""

        class Asks(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: Tensor) -> Any:
                y = self.linear(x).float()
                return (y * 30000.0 * 30000.0).to(torch.bfloat16), y.half()

        module, x = Asks().bfloat16(), torch.randn(2, 8).bfloat16()
        simulated = compiled(module, x, precision="bf16")
        assert computed_in(simulated, "mul.Tensor") == {torch.float32}
        check(module, simulated, x, limit=1e-2)


class TestNumbers:
    """Constants and numbers that the low precision does not have."""

    def test_small_and_large_numbers(self) -> None:
        """An epsilon of 1e-8 and a filler of -1e30 are not what float16 makes of them."""

        class Numbers(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: Tensor, keep: Tensor) -> Any:
                y = self.linear(x)
                y = y * (y.sum(-1, keepdim=True) > 1e9)  # all zeros
                filled = torch.where(keep > 0, self.linear(x), -1e30)
                return (y + 1e-8).log(), y / (y.abs() + 1e-8) + 1.0, filled, F.pad(filled, (1, 1), value=-1e30)

        module, x = Numbers(), torch.randn(2, 8)
        keep = (torch.rand(2, 8) > 0.5).float()
        check(module, compiled(module, x, keep, precision="16"), x, keep, limit=ERROR["16"])

    def test_weights_that_do_not_exist_in_float16(self) -> None:
        """A layer whose weights are beyond float16 computes in float32."""
        module, x = nn.Linear(8, 8), torch.randn(2, 8)
        with torch.no_grad():
            module.weight.mul_(1e6)
        simulated = compiled(module, x, precision="16")
        assert computed_in(simulated, "linear.default") == {torch.float32}
        check(module, simulated, x, limit=ERROR["32"])

    def test_coordinates_stay_exact(self) -> None:
        """Large constants that are added, such as anchors, are no weights: rounding would move them by pixels."""

        class Boxes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 4)
                self.register_buffer("anchors", torch.rand(4) * 1500 + 0.3)

            def forward(self, x: Tensor) -> Tensor:
                return self.linear(x) + self.anchors

        module, x = Boxes(), torch.randn(2, 8)
        check(module, compiled(module, x, precision="16"), x, limit=1e-5)

    @pytest.mark.parametrize(
        ("value", "dtype", "there", "little"),
        [
            (0.1, torch.float16, True, True),
            (0.1, torch.bfloat16, True, False),
            (0.5, torch.bfloat16, True, True),
            (1e-8, torch.float16, False, False),
            (40000.0, torch.float16, False, False),
            (float("-inf"), torch.float16, True, True),
            (1000.0, torch.float16, True, True),
            (1000.3, torch.float16, True, False),
            (0.0, torch.float16, True, True),
            (torch.tensor([]), torch.float16, True, True),
            (torch.tensor([1e-9, 1.0]), torch.float16, True, True),
        ],
    )
    def test_what_can_be_rounded(self, value: Any, dtype: torch.dtype, there: bool, little: bool) -> None:
        """Numbers that are there in the type, and those whose rounding does not matter."""
        assert (fits(value, dtype), loses_little(value, dtype)) == (there, little)


@pytest.mark.parametrize(
    ("operator", "rule"),
    [
        (torch.ops.aten.convolution.default, Rule.LOW),
        (torch.ops.aten._softmax.default, Rule.SINGLE),
        (torch.ops.aten.exp.default, Rule.SINGLE),
        (torch.ops.aten.relu.default, Rule.FOLLOWS),
        (torch.ops.aten.cat.default, Rule.FOLLOWS),
        (torch.ops.aten._fft_r2c.default, Rule.AS_WRITTEN),
        (torch.ops.prims.sin.default, Rule.AS_WRITTEN),
    ],
)
def test_rules(operator: Any, rule: Rule) -> None:
    """Lists first, then what is element-wise; an operator that nobody knows is left alone."""
    assert rule_of(operator) is rule


def test_the_manifest_says_what_was_asked_for(tmp_path: Path) -> None:
    """And that inputs and outputs are what the module has."""
    inputs = {"input": InputSpec(shape=(DimRange(1, 4, 8), 8))}
    artifact = export_module(nn.Linear(8, 2), inputs, tmp_path / "m.windows.ep", precision="16")
    assert artifact.manifest.backend.options["precision"] == "16"
    assert [record.dtype for record in (*artifact.manifest.inputs, *artifact.manifest.outputs)] == ["float32"] * 2


def test_bfloat16_needs_ampere() -> None:
    """TensorRT would say so after minutes, in other words."""
    with pytest.raises(ConfigurationError, match=r"7\.5 have no bfloat16"):
        ExportSettings(precision="bf16", compute_capabilities=("8.6", "7.5"))
    ExportSettings(precision="16", compute_capabilities=("7.5",))
