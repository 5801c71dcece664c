"""What a module is and has, and that it comes back as it was."""

from __future__ import annotations

import lightning.pytorch as L
import pytorch_lightning
import torch
from torch import Tensor, nn

from lightning_trt_windows.modules.state import has_forward


def test_who_has_a_forward() -> None:
    """Whoever wrote one, also in a class that is called as a base class is; not what the bases have in its place."""

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class LightningModule(L.LightningModule):
        def forward(self, x: Tensor) -> Tensor:
            return x

    Module.forward.__qualname__, LightningModule.forward.__qualname__ = "Module.forward", "LightningModule.forward"
    own = nn.Linear(1, 1)
    own.forward = lambda x: x  # type: ignore[method-assign]  # some do
    for module in (Module(), LightningModule(), nn.Linear(1, 1), own, torch.jit.script(nn.Linear(1, 1))):
        assert has_forward(module), type(module)
    for module in (nn.Module(), L.LightningModule(), pytorch_lightning.LightningModule()):
        assert not has_forward(module), type(module)
