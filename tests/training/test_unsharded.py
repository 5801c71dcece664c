"""What is captured where a strategy spreads the module over processes."""

from __future__ import annotations

import resource
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from support.deepspeed_training import Parts, strategy_class
from support.lightning_models import Data, Regression, trainer
from torch import Tensor, nn

from lightning_trt_windows import WindowsExport, export_checkpoint
from lightning_trt_windows._compat.lightning import before_setup
from lightning_trt_windows._compat.torch import no_process_groups
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.builds.tracer import Tracer
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.errors import CaptureError, CheckpointError, ConfigurationError
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.modules.state import weights_swapped
from lightning_trt_windows.training.preflight import check_strategy
from lightning_trt_windows.training.unsharded import Unsharded, is_narrowed, is_sharding


class Options:
    """An object of the user's, with plain values."""

    def __init__(self) -> None:
        self.gain = 1.0


class Changing(Regression):
    """Reads what a training changes: a number, a buffer, an object, the Trainer."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__(width, lr)
        self.scale = 1.0
        self.own = Options()
        self.parts = [self.net[0]]  # not plain: of the module itself
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        assert self.parts[0] is self.net[0]
        return self.net(x) * self.scale * self.own.gain + self.shift


class Spread(Changing):
    """Spread over processes in ``configure_model``, as FSDP2 wants it."""

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def on_train_epoch_start(self) -> None:
        self.scale = 1.0 + self.current_epoch


class Late(L.LightningModule):
    """Makes its layers in ``configure_model``, with one value that no checkpoint has."""

    def __init__(self, lock: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net: Any = None
        if lock:
            self.lock = threading.Lock()  # which cannot be copied

    def configure_model(self) -> None:
        if self.net is None:
            self.net = nn.Linear(4, 2)
            self.register_buffer("offset", torch.ones(2) * 3, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.offset


def quiet(tmp_path: Path) -> Any:
    """A Trainer that does nothing."""
    return trainer(tmp_path)


def test_follows_the_module(tmp_path: Path) -> None:
    """Attributes and buffers are those of the moment, weights those of a checkpoint; the module is not touched."""
    module = Changing().eval()
    whole = Unsharded(quiet(tmp_path), module)
    module.scale, module.own.gain = 2.0, 3.0
    module.shift.fill_(5.0)
    made: Any = whole.module()
    x = torch.rand(3, 4)
    made.eval()
    assert made is not module
    assert made.net[0].weight is not module.net[0].weight
    assert made.net[0].weight.count_nonzero() == 0
    with torch.no_grad(), weights_swapped(made, module.state_dict(), where="a.ckpt"):
        assert torch.equal(made(x), module(x))
    module.scale = 4.0
    assert whole.module() is made
    assert made.scale == 4.0
    assert made.own is not module.own


def test_takes_no_memory_for_weights(tmp_path: Path) -> None:
    """A gigabyte of parameters on the meta device becomes zeros that are nowhere until somebody writes to them."""
    with torch.device("meta"):
        module = Regression()
        module.net[0] = nn.Linear(4, 1 << 26, bias=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made: Any = Unsharded(quiet(tmp_path), module).module()
    assert made.net[0].weight.shape == (1 << 26, 4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_layers_of_configure_model(tmp_path: Path) -> None:
    """``configure_model`` runs on a copy of what the module was before, and values come from the module itself."""
    module = Late()
    whole = Unsharded(quiet(tmp_path), module)
    module.configure_model()
    made: Any = whole.module()
    assert made.net is not module.net
    assert made.offset.tolist() == [3.0, 3.0]
    assert not made.net.weight.is_meta


def test_copies_again_where_nothing_is_spread_yet(tmp_path: Path) -> None:
    """What ``setup`` and ``configure_model`` have made is copied, if it is whole."""
    module = Late()
    whole = Unsharded(quiet(tmp_path), module)
    module.net = nn.Linear(4, 2)
    module.register_buffer("offset", torch.ones(2) * 7, persistent=False)
    whole.before_sharding()
    made: Any = whole.module()
    assert made.offset.tolist() == [7.0, 7.0]


def test_built_from_hyperparameters(tmp_path: Path) -> None:
    """What cannot be copied is built again; where that fails too, the message has both and the way on."""
    module = Late(lock=True)
    whole = Unsharded(quiet(tmp_path), module)
    module.configure_model()
    made: Any = whole.module()
    assert isinstance(made, Late)
    assert made.net.weight.shape == (2, 4)

    class Unknown(Late):
        def __init__(self, needed: int) -> None:
            super().__init__(lock=True)

    other = Unknown(3)
    other._hparams = type(other.hparams)()
    with pytest.raises(CaptureError, match=r"cannot pickle '_thread.lock'.*lightning-trt-windows export"):
        Unsharded(quiet(tmp_path), other).module()


def test_values_that_nobody_computed(tmp_path: Path) -> None:
    """A buffer on the meta device that no checkpoint has is refused by its name."""
    module = Late()
    with torch.device("meta"):
        module.configure_model()
    with pytest.raises(CaptureError, match="offset of the whole instance"):
        Unsharded(quiet(tmp_path), module).module()


def test_nothing_waits_for_other_processes(group: None) -> None:
    """In the block there are no other processes, and none can be met; afterwards everything is as before."""
    assert torch.distributed.is_initialized()
    with no_process_groups():
        assert not torch.distributed.is_initialized()
        with pytest.raises(RuntimeError, match="wait for other processes"):
            torch.distributed.init_process_group("gloo", init_method="env://", rank=0, world_size=2)
        with pytest.raises(ValueError, match="not been initialized"):
            torch.distributed.barrier()
    torch.distributed.barrier()


def test_before_setup() -> None:
    """The action comes first, once, and nothing of it stays on the strategy."""
    order: list[str] = []

    class Strategy:
        def setup(self, trainer: Any) -> None:
            order.append(f"setup {trainer}")

    strategy = Strategy()
    before_setup(strategy, lambda: order.append("action"))
    strategy.setup(1)
    strategy.setup(2)
    assert order == ["action", "setup 1", "setup 2"]
    assert not vars(strategy)


def test_before_setup_again() -> None:
    """A fit that failed before it set its strategy up leaves the action there; so may somebody else's method be."""
    order: list[str] = []

    class Strategy:
        def setup(self, trainer: Any) -> None:
            order.append(f"setup {trainer}")

    strategy = Strategy()
    before_setup(strategy, lambda: order.append("first"))
    before_setup(strategy, lambda: order.append("second"))
    strategy.setup(1)
    assert order == ["second", "first", "setup 1"]
    assert not vars(strategy)
    strategy.setup = lambda trainer: order.append("foreign")  # type: ignore[method-assign]
    before_setup(strategy, lambda: order.append("third"))
    strategy.setup(2)
    strategy.setup(3)
    assert order[3:] == ["third", "foreign", "foreign"]


def test_which_strategies_spread() -> None:
    """Classes that derive from them as well."""

    class Own(FSDPStrategy):
        pass

    assert is_sharding(Own())
    assert is_sharding(ModelParallelStrategy())
    assert not is_sharding(DDPStrategy())


def test_traces_of_what_values_decide_are_not_used_again(tmp_path: Path) -> None:
    """Without weights nothing can be compared where numbers come out of tensors: each checkpoint is captured."""

    class Reads(Regression):
        def forward(self, x: Tensor) -> Tensor:
            count = int(self.net[0].bias.count_nonzero().item())
            torch._check(count >= 0)
            return self.net(x) * count

    for cls, captures in ((Regression, 1), (Reads, 2)):
        module = cls().eval()
        found = discover(module, datamodule=Data())
        tracer = Tracer(ExportOptions(), has_weights=False)
        for number in range(2):
            path = tmp_path / f"{cls.__name__}{number}.ckpt"
            torch.save({"state_dict": module.state_dict(), "epoch": 0, "global_step": number}, path)
            moment = tracer.snapshot(module, lambda found=found: found, step=number)  # type: ignore[misc]
            tracer.job(module, path, moment, ())
        assert tracer.traced == captures
        tracer.close()


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of one, which is gone afterwards."""
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    if torch.distributed.is_initialized():  # Lightning leaves that of a training in this process as it is
        torch.distributed.destroy_process_group()
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "in parts"])
def test_a_training(tmp_path: Path, group: None, sharded: bool) -> None:
    """Each checkpoint has its artifact with the attribute of its epoch, as an export of such a module gives it."""
    folder = tmp_path / "run"
    export = WindowsExport(when="checkpoint", executor="inline")
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    strategy = ModelParallelStrategy(
        save_distributed_checkpoint=sharded, process_group_backend="gloo", data_parallel_size=1, tensor_parallel_size=1
    )
    run = trainer(folder, saver, export, max_epochs=2, devices=1, strategy=strategy)
    module = Spread()
    run.fit(module, datamodule=Data())
    assert "save_checkpoint" not in vars(strategy)
    assert "setup" not in vars(strategy)
    if sharded:
        # of the first, which was saved with another attribute, nothing can be captured any more
        (failure,) = export.failures
        assert "computes something else now" in str(failure)
        (artifact,) = export.artifacts
        assert artifact.path.name == "epoch=1-consolidated.windows.ep"
    else:
        assert not export.failures
        assert [a.path.name for a in export.artifacts] == ["epoch=0.windows.ep", "epoch=1.windows.ep"]
        artifact = export.artifacts[1]

    class Afterwards(Changing):
        def __init__(self, width: int = 8, lr: float = 0.1) -> None:
            super().__init__(width, lr)
            self.scale = 2.0

    record = check_artifact(artifact).manifest.checkpoint
    assert record is not None
    again = export_checkpoint(folder / record.file, Afterwards, output=tmp_path / "again")
    assert [e.sha256 for e in again.manifest.engines] == [e.sha256 for e in artifact.manifest.engines]
    unchanged = export_checkpoint(folder / record.file, Changing, output=tmp_path / "unchanged")
    assert [e.sha256 for e in unchanged.manifest.engines] != [e.sha256 for e in artifact.manifest.engines]


def test_no_checkpoint_at_all(tmp_path: Path, group: None) -> None:
    """The final weights are in no process: a warning and a failure, and the training ends well."""
    export = WindowsExport()
    strategy = ModelParallelStrategy(process_group_backend="gloo", data_parallel_size=1, tensor_parallel_size=1)
    run = trainer(tmp_path, export, max_epochs=1, devices=1, strategy=strategy, enable_checkpointing=False)
    with pytest.warns(UserWarning, match="weights come from checkpoints alone"):
        run.fit(Spread(), datamodule=Data())
    (failure,) = export.failures
    assert isinstance(failure.error, CheckpointError)
    assert run.state.finished


class DeepSpeedStrategy:
    """One of that name is Lightning's, which needs DeepSpeed to be made."""

    def __init__(self, **config: Any) -> None:
        self.config = config


def in_16_bits(precision: str, **config: Any) -> Any:
    """What is asked of a Trainer with DeepSpeed."""
    plugin = types.SimpleNamespace(precision=precision, convert_module=lambda module: module.half())
    return types.SimpleNamespace(strategy=DeepSpeedStrategy(**config), precision_plugin=plugin)


def test_deepspeed_is_not_refused() -> None:
    """Its checkpoints are put together at the end; the one thing that is refused is refused for all."""
    run = types.SimpleNamespace(strategy=DeepSpeedStrategy(), world_size=2)
    check_strategy(run, WindowsExport(when="checkpoint", executor="process").options)
    assert is_sharding(run.strategy)
    with pytest.raises(ConfigurationError, match="would let 1 other processes wait"):
        check_strategy(run, WindowsExport(when="checkpoint", executor="inline").options)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "16-true", "bf16-true"])
def test_16_bits_of_deepspeed(tmp_path: Path, precision: str) -> None:
    """Training makes 16 bits of parameters and buffers; checkpoints have float32, and so has what is captured."""
    module = Changing()
    module.register_buffer("third", torch.tensor([1 / 3]), persistent=False)
    run = in_16_bits(precision)
    assert is_narrowed(run)
    whole = Unsharded(run, module)
    module.to(torch.bfloat16 if "bf16" in precision else torch.float16)
    module.shift.fill_(5.0)
    made: Any = whole.module()
    assert {tensor.dtype for tensor in made.parameters()} == {torch.float32}
    assert made.third.item() == torch.tensor(1 / 3).item(), "as exact as it was before"
    assert made.shift.tolist() == [5.0]
    assert made.shift.dtype is torch.float32


def test_whether_deepspeed_computes_in_16_bits() -> None:
    """By the Trainer or by its own configuration; other strategies have their own ways."""
    assert not is_narrowed(in_16_bits("32-true"))
    assert not is_narrowed(in_16_bits("32-true", bf16={"enabled": False}))
    assert is_narrowed(in_16_bits("32-true", bf16={"enabled": True}))
    run = in_16_bits("16-mixed")
    run.strategy = DDPStrategy()
    assert not is_narrowed(run)


def test_parameters_that_zero_has_taken_apart(tmp_path: Path) -> None:
    """They are empty, and have their shape beside them; their other attributes are DeepSpeed's."""
    module = Regression()
    for parameter in module.parameters():
        vars(parameter).update(ds_shape=parameter.shape, ds_id=1, partition=lambda: None)
        parameter.data = torch.empty(0)
    whole = Unsharded(quiet(tmp_path), module)
    made: Any = whole.module()
    assert made.net[0].weight.shape == (8, 4)
    assert not vars(made.net[0].weight)
    copied = whole._copy
    whole.before_sharding()
    assert whole._copy is copied, "what is taken apart is not copied again"


def test_attributes_of_deepspeed_stay_where_they_are(tmp_path: Path) -> None:
    """They count modules and gradients; one of the user's with such a name is brought over."""
    module = Changing()
    module.ds_rate = 1.0
    whole = Unsharded(quiet(tmp_path), module)
    module.ds_id, module.ds_rate = 3, 2.0
    made: Any = whole.module()
    assert made.ds_rate == 2.0
    assert not hasattr(made, "ds_id")


def test_a_training_with_deepspeed(tmp_path: Path, group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeRO 3 on the processor, in this process: artifacts of the best, and an export afterwards gives the same."""
    pytest.importorskip("deepspeed")
    monkeypatch.setattr(nn.functional, "linear", nn.functional.linear)  # ZeRO 3 replaces it
    monkeypatch.setenv("LOCAL_RANK", "0")
    folder = tmp_path / "run"
    export = WindowsExport(executor="inline")
    strategy = strategy_class(on_cpu=True)(stage=3, process_group_backend="gloo")
    run = trainer(folder, ModelCheckpoint(folder, filename="a"), export, max_epochs=1, devices=1, strategy=strategy)
    run.fit(Parts(), datamodule=Data())
    assert not export.failures
    assert "save_checkpoint" not in vars(strategy)
    assert "setup" not in vars(strategy)
    (artifact,) = export.artifacts
    assert artifact.path.name == "a-consolidated.windows.ep"
    again = export_checkpoint(folder / "a.ckpt", Parts, output=tmp_path / "again", trust_checkpoint=True)
    assert [e.sha256 for e in again.manifest.engines] == [e.sha256 for e in artifact.manifest.engines]
