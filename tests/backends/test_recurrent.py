"""LSTM, GRU and RNN in real TensorRT-RTX engines: one for every length and batch, with the numbers of the module.

The numbers are those of the network that an engine is built from, evaluated by ``lightning_trt_windows.network`` at the
smallest, usual and largest sizes and between them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from support.simulation import partitions_kept
from support.stand_in import StandIn
from torch import Tensor, nn

from lightning_trt_windows import Artifact, DimRange, InputSpec, export_checkpoint, export_module
from lightning_trt_windows.backends.options import recurrent_choice
from lightning_trt_windows.backends.recurrent_cells import CELLS
from lightning_trt_windows.settings import ExportSettings

STEPS, BATCH = DimRange(1, 6, 11, name="steps"), DimRange(1, 3, 5, name="batch")
LIMIT = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Largest relative norm of an error."""


def rnn(kind: str, **options: Any) -> nn.RNNBase:
    """A recurrent net of 4 features and 5 hidden ones."""
    kinds = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": nn.RNN}
    own = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    return kinds[kind](4, 5, **own, **options)


class Whole(nn.Module):
    """All that the net gives."""

    def __init__(self, net: nn.RNNBase) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class WithStates(nn.Module):
    """With the states to begin with."""

    def __init__(self, net: nn.RNNBase) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Any:
        return self.net(x, h if c is None else (h, c))


def export(module: nn.Module, inputs: dict[str, InputSpec], folder: Path, **settings: Any) -> Artifact:
    """One engine with all of the module in it, whose network was compared at all sizes."""
    torch.manual_seed(0)
    artifact = export_module(module.eval(), inputs, folder / "m.windows.ep", check="full", **settings)
    manifest = artifact.manifest
    assert (len(manifest.engines), manifest.fallback_ops) == (1, ())
    check = manifest.check
    assert check is not None
    assert (check.not_checked, check.left_to_pytorch) == ((), ())
    limit = LIMIT[getattr(torch, manifest.inputs[0].dtype)]
    assert all(sizes.lowered <= limit and sizes.engines <= limit for sizes in check.compared), check.compared
    return artifact


CASES = [
    ("lstm", {}),
    ("lstm", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("lstm", {"num_layers": 2, "bidirectional": True, "proj_size": 3, "dropout": 0.5}),
    ("gru", {"num_layers": 2, "batch_first": True}),
    ("gru", {"bidirectional": True, "bias": False}),
    ("tanh", {"num_layers": 2, "bidirectional": True}),
    ("relu", {"batch_first": True}),
]


def name_of(value: Any) -> str:
    """Of a case."""
    return value if isinstance(value, str) else "-".join(value) or "plain"


@pytest.mark.parametrize(("kind", "options"), CASES, ids=name_of)
def test_one_engine_for_every_length_and_batch(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Output and last states, from no states."""
    shape = (BATCH, STEPS, 4) if options.get("batch_first") else (STEPS, BATCH, 4)
    artifact = export(Whole(rnn(kind, **options)), {"x": InputSpec(shape)}, tmp_path)
    sizes = [dict(compared.sizes) for compared in artifact.manifest.check.compared]
    assert sizes[0] == {"batch": 1, "steps": 1}
    assert sizes[-1] == {"batch": 5, "steps": 11}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"num_layers": 2, "bidirectional": True, "proj_size": 3}),
        ("gru", {"bidirectional": True, "batch_first": True}),
        ("tanh", {}),
    ],
    ids=name_of,
)
def test_states_to_begin_with(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """They come as inputs, and the last ones go out."""
    net = rnn(kind, **options)
    count = net.num_layers * (2 if net.bidirectional else 1)
    inputs = {"x": InputSpec((BATCH, STEPS, 4) if net.batch_first else (STEPS, BATCH, 4))}
    inputs["h"] = InputSpec((count, BATCH, net.proj_size or 5))
    if kind == "lstm":
        inputs["c"] = InputSpec((count, BATCH, 5))
    export(WithStates(net), inputs, tmp_path)


def test_a_single_step(tmp_path: Path) -> None:
    """As decoders take them: no loop is needed."""
    inputs = {"x": InputSpec((BATCH, 1, 4)), "h": InputSpec((2, BATCH, 5)), "c": InputSpec((2, BATCH, 5))}
    export(WithStates(rnn("lstm", batch_first=True, bidirectional=True)), inputs, tmp_path)


def test_without_a_batch(tmp_path: Path) -> None:
    """One sequence, of two dimensions."""
    artifact = export(Whole(rnn("gru", bidirectional=True)), {"x": InputSpec((STEPS, 4))}, tmp_path)
    assert artifact.path.stat().st_size < 10_000_000, "TensorRT-RTX makes 540 MB of a row of five numbers"


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_batch_of_one_row(tmp_path: Path, batch_first: bool) -> None:
    """Likewise, with states to begin with that differ, and a projection."""
    net = rnn("lstm", num_layers=2, batch_first=batch_first, proj_size=3)
    shape = (1, STEPS, 4) if batch_first else (STEPS, 1, 4)
    inputs = {"x": InputSpec(shape), "h": InputSpec((2, 1, 3)), "c": InputSpec((2, 1, 5))}
    artifact = export(WithStates(net), inputs, tmp_path)
    assert artifact.path.stat().st_size < 10_000_000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_the_size(dtype: str, tmp_path: Path) -> None:
    """Gates and states are float32 inside, so that long sequences lose nothing."""
    module = Whole(rnn("lstm", num_layers=2, bidirectional=True)).to(getattr(torch, dtype))
    export(module, {"x": InputSpec((STEPS, BATCH, 4), dtype=dtype)}, tmp_path)


class Tagger(L.LightningModule):
    """A class for each step, from a network that was trained with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.net = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True, dropout=0.3)
        self.head = nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.net(self.embedding(ids))[0])


def test_from_a_checkpoint(tmp_path: Path) -> None:
    """The archive, loaded as Windows would, computes what the module does for other lengths and batches."""
    torch.manual_seed(0)
    module, trainer = Tagger(), L.Trainer(logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "tagger.ckpt")
    ids = InputSpec((BATCH, STEPS), dtype="int64")
    with partitions_kept() as partitions:
        artifact = export_checkpoint(tmp_path / "tagger.ckpt", Tagger, inputs={"ids": ids}, check="full")
    assert artifact.manifest.fallback_ops == ()
    loaded = StandIn(artifact, partitions).load()
    for batch, steps in ((1, 1), (2, 11), (5, 4)):
        given = torch.randint(0, 20, (batch, steps))
        with torch.no_grad():
            torch.testing.assert_close(loaded(given), module.eval()(given))


def test_left_to_pytorch_by_name(tmp_path: Path) -> None:
    """``torch_executed_ops`` keeps the operator whole in PyTorch, where a GPU has cuDNN for it."""
    options = {"torch_executed_ops": ["torch.ops.aten.lstm.input"]}
    module = nn.Sequential(nn.Linear(4, 4), Whole(rnn("lstm")))
    artifact = export_module(
        module.eval(), {"input": InputSpec((STEPS, BATCH, 4))}, tmp_path / "m.windows.ep", compile_options=options
    )
    assert artifact.manifest.fallback_ops == ("aten.lstm.input",)


LONG = DimRange(1, 40, 64, name="steps")


@pytest.mark.parametrize(
    ("kind", "units", "steps", "recurrent", "fallback"),
    [
        ("LSTM", 4, STEPS, "engine", ()),
        ("LSTM", 4, LONG, "engine", ()),
        ("LSTM", 4, STEPS, "pytorch", ("aten.lstm.input",)),
        ("LSTM", 4, STEPS, "auto", ()),
        ("LSTM", 4, LONG, "auto", ("aten.lstm.input",)),
        ("LSTM", 4, 40, "auto", ("aten.lstm.input",)),
        ("GRU", 4, LONG, "auto", ("aten.gru.input",)),
        ("GRU", 256, LONG, "auto", ()),
    ],
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_where_they_run(
    tmp_path: Path, kind: str, units: int, steps: DimRange | int, recurrent: Any, fallback: Any, batch_first: bool
) -> None:
    """``recurrent`` decides; ``"auto"`` by the usual length, and a wide GRU stays in the engine."""
    if batch_first and recurrent != "auto":
        pytest.skip("the axis matters for the length alone")
    net = getattr(nn, kind)(4, units, batch_first=batch_first)
    module = nn.Sequential(nn.Linear(4, 4), Whole(net)).eval()
    shape = (BATCH, steps, 4) if batch_first else (steps, BATCH, 4)
    inputs = {"input": InputSpec(shape)}
    artifact = export_module(module, inputs, tmp_path / "m.windows.ep", recurrent=recurrent)
    assert artifact.manifest.fallback_ops == fallback
    assert artifact.manifest.check is not None
    assert artifact.manifest.check.left_to_pytorch == ()
    reason = "cuDNN takes 40 steps faster" if recurrent == "auto" else "recurrent='pytorch'"
    assert any(reason in note for note in artifact.manifest.notes) == bool(fallback)


def test_auto_keeps_the_only_engine(tmp_path: Path) -> None:
    """Where nothing but the net would be in an engine, it is; and a model for ONNX Runtime has it inside."""
    net = nn.LSTM(4, 4).eval()
    artifact = export_module(
        Whole(net), {"x": InputSpec((LONG, BATCH, 4))}, tmp_path / "m.windows.ep", recurrent="auto"
    )
    assert artifact.manifest.fallback_ops == ()
    assert recurrent_choice(ExportSettings(recurrent="auto", formats=("ep", "onnx"))) == "engine"
    assert recurrent_choice(ExportSettings(recurrent="pytorch", formats=("ep", "onnx"))) == "pytorch"


def test_a_wrong_cell_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check sees through the loop: with another formula the operator stays in PyTorch."""
    real = CELLS["gru"]

    def wrong(layers: Any, weights: Any, x: Any, states: Any, rows: Any) -> Any:
        return (layers.tanh(real(layers, weights, x, states, rows)[0]),)

    monkeypatch.setitem(CELLS, "gru", wrong)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), Whole(rnn("gru")))
    inputs = {"input": InputSpec((STEPS, BATCH, 4))}
    artifact = export_module(module.eval(), inputs, tmp_path / "m.windows.ep", check="full")
    assert [left.operator for left in artifact.manifest.check.left_to_pytorch] == ["aten.gru.input"]
