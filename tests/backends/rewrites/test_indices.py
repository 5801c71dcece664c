"""Indices that are negative when the program runs are counted from the end."""

from __future__ import annotations

import torch
from support.evaluating import check_values
from torch import Tensor
from torch.export import Dim

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)
LENGTH = Dim("length", min=2, max=9)


def last_token(h: Tensor, ids: Tensor) -> Tensor:
    """The token before the first padding, or the last one."""
    return h[torch.arange(h.shape[0]), ids.eq(0).int().argmax(1) - 1] * 1


def test_indices_from_the_end() -> None:
    """Indices that are only known at run time, and the last row of an axis that varies."""
    h, ids = torch.randn(4, 5, 6), torch.ones(4, 5, dtype=torch.int64)
    dims = {0: BATCH, 1: LENGTH}
    check_values(last_token, h, ids, dims=(dims, dims))
    check_values(lambda h: h[:, -1] * 1, h, dims=(dims,))
    check_values(lambda x, i: (x[i] * 1, x[:, i] * 1), X, torch.tensor([[0, -1], [2, -3]]))


def test_constant_indices_of_axes_that_vary() -> None:
    """Two of them, side by side and with a slice between them."""
    x, i, j = torch.randn(4, 5, 3, 6), torch.tensor([[0], [3]]), torch.tensor([1, -1, 2])
    length, height = Dim("length", min=3, max=9), Dim("height", min=4, max=9)
    for dims in ({3: length}, {1: height}, {0: BATCH, 3: length}, {0: BATCH, 2: Dim("middle", min=1, max=4)}):
        check_values(lambda x: (x[:, i, :, j] * 1, x[:, [0, 1], :, [0, 1]]), x, dims=(dims,))
    check_values(lambda x, i, j: x[:, i, :, j] * 1, x, i, j, dims=({0: BATCH, 3: length}, None, None))
    check_values(lambda x: x[[0, 1], [1, -1]] * 1, x, dims=({0: Dim("b", min=2, max=8), 1: LENGTH},))


def test_assignments_to_them() -> None:
    """So are the places that are assigned to."""

    def assigned(x: Tensor, i: Tensor) -> Tensor:
        x = x.clone()
        x[:, i] = 7.0
        return x * 1

    check_values(assigned, X, torch.tensor([0, -1]), dims=({0: BATCH}, None))
