"""Tensors that are made empty need no GPU while a module is exported."""

from __future__ import annotations

import torch
from support.evaluating import check_values
from torch.export import Dim
from torch.nn import functional as F

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)


def test_made_and_filled() -> None:
    """What is filled before it is read does not show what it held."""
    check_values(lambda x: torch.empty_like(x).fill_(2.0) + x, X, dims=({0: BATCH},))
    check_values(lambda x: x.new_empty(x.shape[0], 3).fill_(2.0) + x[:, :3], X, dims=({0: BATCH},))
    check_values(lambda x: torch.empty(5, 1).fill_(2.0).T + x, X)


def test_repeated_along_no_axis() -> None:
    """A number stays what it is; along new axes it is repeated."""
    number = torch.tensor(3.0)
    check_values(lambda n, x: (torch.tile(n, ()), x * 2.0), number, X)
    check_values(lambda n, x: (torch.tile(n, (2, 3)), x * 2.0), number, X)


def test_boxes() -> None:
    """Corners of boxes, as detection heads write them into an empty tensor."""

    def corners(x: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(x)
        result[:, :2] = x[:, :2] - x[:, 2:] / 2
        result[:, 2:] = x[:, :2] + x[:, 2:] / 2
        return result * 1

    check_values(corners, X[:, :4].contiguous(), dims=({0: BATCH},))


def test_losses_of_embeddings() -> None:
    """They make empty tensors, which upstream does on a GPU."""
    target = torch.tensor([1, -1, 1, -1])
    check_values(F.cosine_embedding_loss, X, X.flip(0), target)
    check_values(F.hinge_embedding_loss, X, torch.ones(4, 5))
