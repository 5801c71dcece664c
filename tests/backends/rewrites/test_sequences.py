"""BatchNorm over sequences of any length is in an engine, and gives what it gives in PyTorch."""

from __future__ import annotations

import torch
from support.evaluating import check_values
from torch import nn
from torch.export import Dim


def test_any_length() -> None:
    """Between convolutions, with running statistics that are not those of the batch."""
    norm = nn.BatchNorm1d(3)
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.running_var)
    module = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), norm, nn.ReLU(), nn.Conv1d(3, 1, 1))
    dims = ({0: Dim("batch", min=1, max=8), 2: Dim("length", min=4, max=20)},)
    check_values(module, torch.randn(2, 2, 9), dims=dims)
