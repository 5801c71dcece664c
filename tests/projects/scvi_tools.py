"""scvi-tools: variational models of single cells, whose modules take dicts and return distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import scvi
from projects.model import model, options
from torch import nn

REQUIREMENTS = ("scvi-tools==1.4.2",)

METHOD = {"method": "module.z_encoder"}


def _fit(made: Any, callbacks: list[Any], folder: Path) -> nn.Module:
    arguments = options(callbacks, folder)
    made.train(batch_size=64, **arguments)
    return made.module


@model(way_on=METHOD)
def scvi_model(callbacks: list[Any], folder: Path) -> nn.Module:
    """scVI."""
    cells = scvi.data.synthetic_iid(n_genes=40)
    scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
    return _fit(scvi.model.SCVI(cells, n_hidden=16, n_latent=4), callbacks, folder)


@model(way_on={"method": "module.z_encoder_accessibility"})
def linear_scvi(callbacks: list[Any], folder: Path) -> nn.Module:
    """Linearly decoded scVI."""
    cells = scvi.data.synthetic_iid(n_genes=40)
    scvi.model.LinearSCVI.setup_anndata(cells, batch_key="batch")
    return _fit(scvi.model.LinearSCVI(cells, n_hidden=16, n_latent=4), callbacks, folder)
