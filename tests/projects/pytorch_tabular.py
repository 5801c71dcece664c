"""PyTorch Tabular: models for tables; its own Trainer, batches are dicts of continuous and categorical columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pandas
from pytorch_tabular import TabularModel
from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig
from pytorch_tabular.models import CategoryEmbeddingModelConfig, FTTransformerConfig
from torch import nn

from projects.model import model

REQUIREMENTS = ("pytorch-tabular==1.2.0",)


def _fit(config: Any, callbacks: list[Any], folder: Path) -> nn.Module:
    random = numpy.random.default_rng(1)
    frame = pandas.DataFrame(
        {"a": random.random(64), "b": random.random(64), "kind": random.choice(["x", "y", "z"], 64), "y": [0, 1] * 32}
    )
    made = TabularModel(
        data_config=DataConfig(target=["y"], continuous_cols=["a", "b"], categorical_cols=["kind"]),
        model_config=config,
        optimizer_config=OptimizerConfig(),
        trainer_config=TrainerConfig(
            batch_size=16, max_epochs=2, accelerator="cpu", early_stopping=None, checkpoints_path=str(folder),
            load_best=False, progress_bar="none", trainer_kwargs={"default_root_dir": str(folder)},
        ),
        verbose=False,
    )  # fmt: skip
    made.fit(train=frame, validation=frame, callbacks=callbacks or None)
    return made.model


@model()
def category_embedding(callbacks: list[Any], folder: Path) -> nn.Module:
    """Embeddings and a feed-forward network."""
    return _fit(CategoryEmbeddingModelConfig(task="classification", layers="16-8"), callbacks, folder)


@model()
def ft_transformer(callbacks: list[Any], folder: Path) -> nn.Module:
    """FT-Transformer."""
    config = FTTransformerConfig(task="classification", input_embed_dim=16, num_heads=2, num_attn_blocks=2)
    return _fit(config, callbacks, folder)
