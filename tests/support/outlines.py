"""Modules whose outputs come from everywhere: engines, inputs, constants, and operators that stay in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec

__all__ = ["EnginesOnly", "Several", "WithShort"]

BATCH = DimRange(1, 4, 8)


class EnginesOnly(nn.Module):
    """An embedding and a linear layer; one input is returned as it came, one is not used, one output comes twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.linear = nn.Linear(8, 3)

    def forward(self, ids: Tensor, image: Tensor, unused: Tensor) -> dict[str, Tensor]:
        scores = self.linear(self.embedding(ids)).mean(1).softmax(-1)
        offset = torch.tensor([[1.5, 2.5], [3.5, 4.5]])
        return {"b": scores, "a": image * 2, "same": image, "tokens": ids + 1, "again": scores, "offset": offset}

    @staticmethod
    def inputs() -> dict[str, InputSpec]:
        """Ranges of the arguments."""
        return {
            "ids": InputSpec((BATCH, 16), dtype="int64"),
            "image": InputSpec((BATCH, 3, 4)),
            "unused": InputSpec((BATCH, 2)),
        }


class Several(nn.Module):
    """Outputs of an engine twice, of an input, of a constant, and of an operator that TensorRT does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, unused: Tensor) -> tuple[Tensor, ...]:
        hidden = torch.relu(self.linear(x))
        return hidden, x, torch.zeros(1), hidden, torch.special.airy_ai(hidden)

    @staticmethod
    def inputs() -> dict[str, InputSpec]:
        """Ranges of the arguments."""
        return {"x": InputSpec((BATCH, 4)), "unused": InputSpec((BATCH, 2))}


class WithShort(nn.Module):
    """One output is a constant of a type that readers of constants do not know."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, torch.tensor([1, 2], dtype=torch.int16)
