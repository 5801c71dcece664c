"""A module with all that checkpoints of DeepSpeed treat differently, and a strategy for processors."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import torch
from torch import Tensor, nn

from support.lightning_models import Regression

__all__ = ["Parts", "forget_groups", "strategy_class"]


class Parts(Regression):
    """Parameters that are frozen, tied and made late; buffers of several types, one of them in no checkpoint.

    Layers are made in the constructor (``"early"``), in ``configure_model`` (``"late"``), or in both.
    """

    def __init__(self, width: int = 8, lr: float = 0.01, layer_norm: bool = False, made: str = "both") -> None:
        super().__init__(width, lr)
        self.save_hyperparameters()
        self.net: Any = None
        self.late: Any = None
        if made != "late":
            self._make()
        if made == "early":
            self.late = nn.Linear(4, 4)

    def _make(self) -> None:
        width = self.hparams["width"]
        # DeepSpeed leaves float32 to buffers, which not every BatchNorm takes with weights of 16 bits
        norm = nn.LayerNorm(width) if self.hparams["layer_norm"] else nn.BatchNorm1d(width)
        self.net = nn.Sequential(nn.Linear(4, width), norm, nn.Dropout(0.2), nn.Linear(width, 1))
        self.frozen = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)
        self.tied = nn.Linear(4, width, bias=False)
        self.tied.weight = self.net[0].weight
        self.register_buffer("count", torch.arange(3))
        self.register_buffer("scale", torch.linspace(0.1, 0.4, 4))
        # in configure_model DeepSpeed makes 16 bits of buffers at once: a third would be another number there
        third = 0.25 if self.hparams["made"] == "late" else 1 / 3
        self.register_buffer("shift", torch.tensor([third]), persistent=False)

    def configure_model(self) -> None:
        if self.net is None:
            self._make()
        if self.late is None:
            self.late = nn.Linear(4, 4)

    def on_fit_start(self) -> None:
        # ZeRO 3 leaves all buffers on the processor, where BatchNorm's are no use to a GPU
        for module in self.modules():
            for name, value in module.named_buffers(recurse=False, remove_duplicate=False):
                setattr(module, name, value.to(self.device))

    def forward(self, x: Tensor) -> Tensor:
        # ZeRO 3 leaves buffers that configure_model makes on the processor
        x = x + self.late(self.frozen(x)) * self.scale.to(x)
        return self.net(x) + self.tied(x).mean(1, keepdim=True) + self.shift.to(x)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), self.hparams["lr"])


def forget_groups() -> None:
    """Let DeepSpeed find that its process has no groups any more: it keeps them, and a test has taken them away."""
    if "deepspeed" in sys.modules:
        importlib.import_module("deepspeed.comm.comm").cdb = None  # type: ignore[attr-defined]  # it has no types
        importlib.reload(importlib.import_module("deepspeed.utils.groups"))


def strategy_class(*, on_cpu: bool) -> Any:
    """Lightning's, or one for processors: DeepSpeed itself takes them."""
    from lightning.fabric.utilities.seed import reset_seed
    from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

    class OnCPU(DeepSpeedStrategy):
        def setup_environment(self) -> None:
            DDPStrategy.setup_environment(self)

        def setup_distributed(self) -> None:
            reset_seed()
            self.set_world_ranks()
            self._init_deepspeed_distributed()

        def _setup_model_and_optimizer(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> Any:
            import deepspeed

            made = deepspeed.initialize(
                args=argparse.Namespace(device_rank=self.local_rank),  # Lightning gives the index of its device
                config=self.config,
                model=model,
                model_parameters=(p for p in model.parameters() if p.requires_grad),
                optimizer=optimizer,
                lr_scheduler=lr_scheduler,
                dist_init_required=False,
            )
            return made[0], made[1]

    return OnCPU if on_cpu else DeepSpeedStrategy
