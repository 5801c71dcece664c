"""Mean and inverse deviation of layer and group normalisation, where a module uses them."""

from __future__ import annotations

import torch
from support.evaluating import check_values
from torch.export import Dim
from torch.nn import functional as F

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)


def test_of_layers() -> None:
    """Beside the result, and the result alone."""
    check_values(lambda x: F.layer_norm(x, [5]), X, dims=({0: BATCH},))
    check_values(lambda x: torch.native_layer_norm(x, [5], None, None, 1e-5), X, dims=({0: BATCH},))


def test_of_groups() -> None:
    """Per batch and group."""
    x = torch.randn(4, 6, 3, 2)
    check_values(lambda x: torch.native_group_norm(x, None, None, x.shape[0], 6, 6, 2, 1e-5), x)
    check_values(lambda x: torch.native_group_norm(x, None, None, x.shape[0], 6, 6, 2, 1e-5), x, dims=({0: BATCH},))
