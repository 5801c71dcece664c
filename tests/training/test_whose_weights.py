"""The artifact has the weights of the checkpoint's file, whoever changed or wrapped those of the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import BackboneFinetuning, ModelCheckpoint, StochasticWeightAveraging
from support.lightning_models import Data, Regression, trainer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.verification.golden_file import read_goldens


class LowRank(nn.Module):
    """What LoRA adds to a weight."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(2, columns) / 10)
        self.up = nn.Parameter(torch.randn(rows, 2) / 10)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


class Parametrized(Regression):
    """Low rank matrices on frozen weights, as a parametrization of torch's."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__(width=width, lr=lr)
        self.net.requires_grad_(False)
        for layer in self.net.modules():
            if isinstance(layer, nn.Linear):
                parametrize.register_parametrization(layer, "weight", LowRank(*layer.weight.shape))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1)


class Wrapped(nn.Module):
    """A layer with an adapter beside it, as PEFT wraps them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.up(self.down(x))
        return out


class Adapted(Regression):
    """Adapters, whose checkpoints hold nothing else: the rest is what it always was."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(5)  # a backbone that is downloaded
            super().__init__(width=width, lr=lr)
        for index, layer in enumerate(self.net):
            if isinstance(layer, nn.Linear):
                self.net[index] = Wrapped(layer)
        self.strict_loading = False

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        whole = super().state_dict(*args, **kwargs)
        return {key: value for key, value in whole.items() if ".base." not in key}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1)


class Finetuned(Regression):
    """Its backbone is frozen at first."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__(width=width, lr=lr)
        self.backbone = self.net[0]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1)


def averaging(name: str) -> list[Any]:
    """The callback, where this Lightning has it."""
    if not hasattr(lightning_callbacks, name):
        pytest.skip(f"this Lightning has no {name}")
    return [getattr(lightning_callbacks, name)()]


CASES: dict[str, tuple[type[Regression], Any]] = {
    "weight averaging": (Regression, lambda: averaging("WeightAveraging")),
    "exponential averaging": (Regression, lambda: averaging("EMAWeightAveraging")),
    "stochastic averaging": (Regression, lambda: [StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)]),
    "parametrization": (Parametrized, list),
    "adapters, strict_loading=False": (Adapted, list),
    "frozen, then not": (Finetuned, lambda: [BackboneFinetuning(unfreeze_backbone_at_epoch=1)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:The backbone is frozen", "ignore:.*parameter groups")
def test_weights_of_the_file(tmp_path: Path, case: str) -> None:
    """What the captured program gives is what the module gives that is loaded from the checkpoint."""
    module_class, others = CASES[case]
    export = WindowsExport(when="checkpoint", executor="inline", golden=True)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run = trainer(tmp_path, saver, *others(), export, max_epochs=2)
    run.fit(module_class(), datamodule=Data())
    assert export.failures == []
    assert len(export.artifacts) == len(list(tmp_path.glob("*.ckpt"))) >= 2
    outputs = []
    for artifact in export.artifacts:
        checkpoint = tmp_path / artifact.path.name.replace(".windows.ep", ".ckpt")
        loaded = module_class.load_from_checkpoint(checkpoint, map_location="cpu").eval()
        goldens = read_goldens(artifact)
        assert goldens is not None
        for golden in goldens.sets:
            expected = loaded(*golden.inputs)
            torch.testing.assert_close(next(iter(golden.outputs.values())), expected)
        outputs.append(expected.flatten()[0].item())
    assert len(set(outputs)) > 1, "training changed nothing, so that nothing is shown"
