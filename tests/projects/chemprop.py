"""chemprop: message passing over molecules, whose graphs are a dataclass with slots and ``InitVar``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy
from chemprop import data, featurizers, models
from chemprop import nn as parts
from torch import nn

from projects.model import model, options

REQUIREMENTS = ("chemprop==2.3.1",)

MOLECULES = (
    "CCO",
    "c1ccccc1O",
    "CC(=O)O",
    "CCN",
    "CCCCC",
    "CC(C)O",
    "OCC(O)CO",
    "c1ccncc1",
    "CCOC",
    "CC#N",
    "CCCl",
    "CS",
)


def _fit(made: Any, callbacks: list[Any], folder: Path) -> nn.Module:
    random = numpy.random.default_rng(1)
    points = [data.MoleculeDatapoint.from_smi(smiles, random.random(1)) for smiles in MOLECULES]
    featurizer = featurizers.SimpleMoleculeMolGraphFeaturizer()
    train, val = data.MoleculeDataset(points[:6], featurizer), data.MoleculeDataset(points[3:], featurizer)
    train.normalize_targets()
    L.Trainer(**options(callbacks, folder)).fit(
        made,
        data.build_dataloader(train, batch_size=3, num_workers=0),
        data.build_dataloader(val, batch_size=3, num_workers=0, shuffle=False),
    )
    return made


@model()
def bond_messages(callbacks: list[Any], folder: Path) -> nn.Module:
    """D-MPNN, as in chemprop's notebook on training."""
    made = models.MPNN(parts.BondMessagePassing(d_h=32), parts.MeanAggregation(), parts.RegressionFFN(input_dim=32))
    return _fit(made, callbacks, folder)


@model()
def atom_messages(callbacks: list[Any], folder: Path) -> nn.Module:
    """Messages between atoms, normalised sums, batch norm."""
    made = models.MPNN(
        parts.AtomMessagePassing(d_h=32), parts.NormAggregation(), parts.RegressionFFN(input_dim=32), batch_norm=True
    )
    return _fit(made, callbacks, folder)
