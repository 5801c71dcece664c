"""The source of a small LightningModule, for files and processes of their own."""

__all__ = ["NET"]

NET = """
import torch
from lightning.pytorch import LightningModule

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x)
"""
