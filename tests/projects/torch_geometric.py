"""PyTorch Geometric with Lightning, as in its examples: batches are ``Batch`` objects of graphs of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, GINConv, global_add_pool

from projects.model import model, options

REQUIREMENTS = ("torch-geometric==2.8.1",)


class GIN(L.LightningModule):
    """From ``examples/pytorch_lightning/gin.py``: ``forward`` takes tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GINConv(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16)))
        self.lin = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """Scores of graphs."""
        return self.lin(self.conv(x, edge_index).relu())

    def training_step(self, data: Any, batch_idx: int) -> torch.Tensor:
        found = self(data.x, data.edge_index, data.batch)
        return nn.functional.cross_entropy(global_add_pool(found, data.batch), data.y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class GCN(L.LightningModule):
    """``forward`` takes the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = GCNConv(6, 16, normalize=False)
        self.conv2 = GCNConv(16, 3, normalize=False)

    def forward(self, data: Batch) -> torch.Tensor:
        """Scores of nodes."""
        return self.conv2(self.conv1(data.x, data.edge_index).relu(), data.edge_index)

    def training_step(self, data: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(data), data.y[data.batch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def _fit(module: L.LightningModule, callbacks: list[Any], folder: Path) -> nn.Module:
    made = torch.Generator().manual_seed(1)
    graphs = []
    for number in range(12):
        nodes, edges = 5 + number * 5 % 7, 12 + number % 5
        ends = torch.randint(0, nodes, (2, edges), generator=made)
        graphs.append(Data(x=torch.rand(nodes, 6, generator=made), edge_index=ends, y=torch.tensor([number % 3])))
    L.Trainer(**options(callbacks, folder)).fit(module, DataLoader(graphs, batch_size=4))
    return module


@model()
def gin(callbacks: list[Any], folder: Path) -> nn.Module:
    """GIN."""
    return _fit(GIN(), callbacks, folder)


@model()
def gcn(callbacks: list[Any], folder: Path) -> nn.Module:
    """GCN."""
    return _fit(GCN(), callbacks, folder)
