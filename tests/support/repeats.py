"""A module whose sizes depend on values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Repeats"]


class Repeats(nn.Module):
    """Each row as often as it says, and something after that."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        y = self.before(x).relu()
        return self.after(torch.repeat_interleave(y, times, dim=0).tanh())
