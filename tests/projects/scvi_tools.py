"""scvi-tools: variational models of single cells, whose modules take dicts and return distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import scvi
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("scvi-tools==1.4.2",)


def _cells() -> Any:
    scvi.settings.seed = 1  # its own, for the split into training and validation
    return scvi.data.synthetic_iid(n_genes=40)


def _fit(made: Any, callbacks: list[Any], folder: Path) -> nn.Module:
    made.train(batch_size=64, **options(callbacks, folder))
    return made.module


@model()
def scvi_model(callbacks: list[Any], folder: Path) -> nn.Module:
    """ScVI."""
    cells = _cells()
    scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
    return _fit(scvi.model.SCVI(cells, n_hidden=16, n_latent=4), callbacks, folder)


@model()
def linear_scvi(callbacks: list[Any], folder: Path) -> nn.Module:
    """Linearly decoded scVI."""
    cells = _cells()
    scvi.model.LinearSCVI.setup_anndata(cells, batch_key="batch")
    return _fit(scvi.model.LinearSCVI(cells, n_hidden=16, n_latent=4), callbacks, folder)
