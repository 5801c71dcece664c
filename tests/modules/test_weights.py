"""Weights of a checkpoint are loaded as the module wants them, and the module is what it was afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, ModelPruning
from support.lightning_models import Data, Regression, trainer
from torch import Tensor, nn
from torch.nn.utils import prune

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.errors import CheckpointError
from lightning_trt_windows.modules.state import weights_swapped
from lightning_trt_windows.modules.weights import is_stock
from lightning_trt_windows.verification.golden_file import read_goldens


class Plain(nn.Module):
    """Layers, a buffer, and a value that is not a number."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.net[2].requires_grad_(False)
        self.register_buffer("seen", torch.full((2,), float("nan")))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y


class InPlace(Plain):
    """Its loader writes to its tensors."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        own = self.state_dict()
        for key, value in state_dict.items():
            own[key].copy_(value)


class Older(Plain):
    """Its loader has the signature that loaders had before there was ``assign``."""

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:  # type: ignore[override]
        return super().load_state_dict(state_dict, strict)


class ByData(Plain):
    """Its loader exchanges the contents of parameters, and changes what needs gradients."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        for key, value in self.named_parameters():
            value.data = state_dict[key].clone()
            value.requires_grad_(not value.requires_grad)
        for key, value in self.named_buffers():
            value.data = state_dict[key].clone()


class OutOfReach(Plain):
    """Its loader writes to tensors that it knows from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        known = {**dict(self.named_parameters()), **dict(self.named_buffers())}

        def write(module: Any, state: Any, *others: Any) -> None:
            for key, value in known.items():
                value.data.copy_(state[key])

        self.register_load_state_dict_pre_hook(write)


class Views(Plain):
    """Its parameters are views of one tensor, which its loader writes to."""

    def __init__(self) -> None:
        super().__init__()
        named = dict(self.named_parameters())
        self.flat = torch.cat([value.detach().reshape(-1) for value in named.values()])
        for value, part in zip(named.values(), self.flat.split([value.numel() for value in named.values()])):
            value.data = part.view(value.shape)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:  # type: ignore[override]
        self.flat.copy_(torch.cat([state_dict[key].reshape(-1) for key, _ in self.named_parameters()]))
        for key, value in self.named_buffers():
            value.copy_(state_dict[key])


class Queue(nn.Module):
    """Takes the length that the checkpoint has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(2, 3))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        self.rows.resize_(state_dict[f"{prefix}rows"].shape)
        super()._load_from_state_dict(state_dict, prefix, *others)


class Queued(Plain):
    """Has one."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()


class Shadow:
    """The mean of weights, an object of a plain class."""

    def __init__(self, module: nn.Module) -> None:
        self.values = {key: value.detach().clone() for key, value in module.state_dict().items()}


class Averaged(Plain):
    """Keeps means in plain attributes, and writes to them in a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.ema = {"net": {key: value.detach().clone() for key, value in self.net.state_dict().items()}}
        self.shadow = Shadow(self.net)
        self.pair = (torch.zeros(2), torch.ones(2))
        self._register_load_state_dict_pre_hook(self._load)

    def _load(self, state: Any, prefix: str, *others: Any) -> None:
        for values in (self.ema["net"], self.shadow.values):
            for key, value in values.items():
                value.copy_(state[f"{prefix}net.{key}"])
        for value in self.pair:
            value.fill_(9.0)


class Broken(InPlace):
    """Its loader fails when all is written."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        super().load_state_dict(state_dict, strict, assign)
        raise ValueError("and then this")


OWN = (InPlace, Older, ByData, OutOfReach, Views, Queued, Averaged)


def tensors(module: nn.Module) -> list[Tensor]:
    """Every tensor that the module has anywhere."""
    found = [*module.parameters(), *module.buffers()]
    if isinstance(module, Averaged):
        found += [*module.ema["net"].values(), *module.shadow.values.values(), *module.pair]
    return [*found, module.flat] if isinstance(module, Views) else found


def facts(module: nn.Module) -> list[Any]:
    """What must not change about them; bits, as NaN is not equal to itself."""
    return [
        (id(t), t.data_ptr(), t.shape, t.stride(), t.dtype, t.device, t.requires_grad, t.detach().numpy().tobytes())
        for t in tensors(module)
    ]


def another_checkpoint(module: nn.Module) -> dict[str, Tensor]:
    """Other weights, and a longer queue."""
    state = {key: torch.full_like(value, 7) for key, value in module.state_dict().items()}
    if "queue.rows" in state:
        state["queue.rows"] = torch.full((5, 3), 7.0)
    return state


@pytest.mark.parametrize("module_class", [Plain, *OWN])
def test_module_is_what_it_was(module_class: Callable[[], nn.Module]) -> None:
    """The module has the checkpoint's weights within the block, and its own tensors afterwards, bit for bit."""
    module = module_class()
    before = facts(module)
    state = another_checkpoint(module)
    with weights_swapped(module, state, where="a.ckpt"):
        within = module.state_dict()
        assert all(torch.equal(within[key], value) for key, value in state.items())
    assert facts(module) == before
    assert all(bool((value == 7).all()) for value in within.values()), "what was captured is still the checkpoint's"


@pytest.mark.parametrize("module_class", [OutOfReach, InPlace, ByData, Queued])
def test_nothing_of_the_training_is_written_to_while_the_block_runs(module_class: Callable[[], nn.Module]) -> None:
    """The module's own tensors have their own values as soon as weights are loaded: others may look at them."""
    module = module_class()
    own = tensors(module)
    values = [t.detach().clone() for t in own]
    with weights_swapped(module, another_checkpoint(module), where="a.ckpt"):
        now = [torch.equal(t.nan_to_num(1), value.nan_to_num(1)) for t, value in zip(own, values)]
    assert all(now)


def test_after_a_loader_that_fails() -> None:
    """What it has written is put back."""
    module = Broken()
    before = facts(module)
    with (
        pytest.raises(CheckpointError, match="and then this"),
        weights_swapped(module, another_checkpoint(module), where="a.ckpt"),
    ):
        pass
    assert facts(module) == before


def test_after_a_block_that_fails() -> None:
    """So it is when a capture fails."""
    module = InPlace()
    before = facts(module)
    with pytest.raises(ZeroDivisionError), weights_swapped(module, another_checkpoint(module), where="a.ckpt"):
        raise ZeroDivisionError
    assert facts(module) == before


def test_what_the_checkpoint_lacks_is_the_modules_own() -> None:
    """Parameters that were not loaded are the very same objects, by which a module is known that has no weights."""
    module = InPlace()
    with weights_swapped(module, {"net.0.bias": torch.ones(4)}, where="a.ckpt", strict=False):
        loaded = [key for key, value in module.named_parameters() if bool((value == 1).all())]
        inside = {key: id(value) for key, value in module.named_parameters()}
    own = {key: id(value) for key, value in module.named_parameters()}
    assert "net.0.bias" in loaded
    assert [key for key in own if own[key] != inside[key]] == ["net.0.bias"]


def test_who_is_protected() -> None:
    """Layers and parametrizations of PyTorch's load by reference, and nothing is copied; loaders of others write."""
    stock = Plain()
    nn.utils.parametrizations.weight_norm(stock.net[0])
    assert is_stock(stock)
    assert not any(is_stock(module_class()) for module_class in OWN)
    stock.load_state_dict = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment,misc]  # some do
    assert not is_stock(stock)


@contextmanager
def exchanging() -> Iterator[None]:
    """PyTorch exchanges the contents of parameters, not the objects."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_where_pytorch_exchanges_contents() -> None:
    """``set_swap_module_params_on_conversion`` does not give the training another checkpoint's weights."""
    module = Plain()
    before = facts(module)
    with exchanging():
        with weights_swapped(module, another_checkpoint(module), where="a.ckpt"):
            pass
        assert torch.__future__.get_swap_module_params_on_conversion()
    assert facts(module) == before


def test_pruned_weights_without_masks() -> None:
    """``ModelPruning`` saves products of weights and masks, under the name of the weight."""
    module = Plain()
    prune.l1_unstructured(module.net[0], "weight", 0.5)  # type: ignore[no-untyped-call]  # torch's
    state = dict(module.state_dict())
    state["net.0.weight"] = state.pop("net.0.weight_orig") * state.pop("net.0.weight_mask") + 1
    x = torch.rand(5, 3)
    with weights_swapped(module.eval(), state, where="a.ckpt"), torch.no_grad():
        found = module.net[0](x)
    assert torch.equal(found, nn.functional.linear(x, state["net.0.weight"], state["net.0.bias"]))
    assert set(module.state_dict()) != set(state)


class RegressionInPlace(Regression):
    """In training."""

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:  # type: ignore[override]
        own = self.state_dict()
        for key, value in state_dict.items():
            own[key].copy_(value)


def trained(folder: Path, module_class: type[Regression], *callbacks: Any) -> Regression:
    """A module after two epochs."""
    torch.manual_seed(1)
    module = module_class()
    worst = ModelCheckpoint(folder, monitor="step", mode="min", filename="{epoch}", save_last=True)  # it comes first
    run = trainer(folder, worst, *callbacks, max_epochs=2)
    run.fit(module, datamodule=Data())
    return module


@pytest.mark.parametrize("when", ["checkpoint", "train_end"])
def test_training_with_a_loader_that_writes(tmp_path: Path, when: Any) -> None:
    """The training ends with the weights that it ends with alone, and artifacts have those of their checkpoints."""
    export = WindowsExport(when=when, executor="inline", golden=True)
    alone = trained(tmp_path / "alone", RegressionInPlace).state_dict()
    module = trained(tmp_path / "exported", RegressionInPlace, export)
    assert export.failures == []
    assert all(torch.equal(alone[key], value) for key, value in module.state_dict().items())
    _compare_with_files(export, tmp_path / "exported")


def test_training_with_pruning(tmp_path: Path) -> None:
    """Checkpoints that are saved while a module is pruned are exported."""
    export = WindowsExport(when="checkpoint", executor="inline", golden=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(tmp_path, Regression, ModelPruning("l1_unstructured", amount=0.3), export)
    assert export.failures == []
    _compare_with_files(export, tmp_path)


def _compare_with_files(export: WindowsExport, folder: Path, module_class: type[Regression] = Regression) -> None:
    assert len(export.artifacts) == len(list(folder.glob("*.ckpt"))) == 2
    for artifact in export.artifacts:
        file = folder / artifact.path.name.replace(".windows.ep", ".ckpt")
        module = module_class.load_from_checkpoint(file, map_location="cpu")
        goldens = read_goldens(artifact)
        assert goldens is not None
        for golden in goldens.sets:
            torch.testing.assert_close(next(iter(golden.outputs.values())), module.eval()(*golden.inputs))


class Stripped(Regression):
    """Leaves its backbone out of checkpoints."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__(width=width, lr=lr)
        with torch.random.fork_rng():
            torch.manual_seed(5)  # it is downloaded
            self.backbone = nn.Linear(4, 4)
        self.backbone.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.backbone(x))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not key.startswith("backbone")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = self.backbone.state_dict(prefix="backbone.")
        checkpoint["state_dict"] = {**own, **checkpoint["state_dict"]}


class StrippedWithStatistics(Stripped):
    """In a backbone with values that training changes, frozen or not."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__(width=width, lr=lr)
        self.backbone = nn.Sequential(self.backbone, nn.BatchNorm1d(4).requires_grad_(False))


def test_training_without_frozen_weights_in_its_checkpoints(tmp_path: Path) -> None:
    """They are the module's, as it has frozen them."""
    export = WindowsExport(when="train_end", executor="inline", golden=True)
    module = trained(tmp_path, Stripped, export)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert export.failures == []
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    _compare_with_files(export, tmp_path, Stripped)


@pytest.mark.parametrize("lacks", ["trained", "statistics", "another training"])
def test_what_else_is_left_out_of_checkpoints(lacks: str) -> None:
    """What training changes is not taken from the module, and the message says what to do."""
    module = StrippedWithStatistics() if lacks == "statistics" else Stripped()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    if lacks == "trained":
        module.backbone.weight.requires_grad_(True)
    before = facts(module)
    with (
        pytest.raises(CheckpointError, match=r"(?s)Missing key.*in on_save_checkpoint.*export a\.ckpt --module"),
        weights_swapped(module, checkpoint["state_dict"], where="a.ckpt", in_training=lacks != "another training"),
    ):
        pass
    assert facts(module) == before
