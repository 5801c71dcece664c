"""transformers in a LightningModule, built ``from_config`` (no weights are downloaded), with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
import transformers as hf
from torch import nn
from torch.utils.data import DataLoader

from projects.model import model, options

REQUIREMENTS = ()


class Finetuner(L.LightningModule):
    """As in Lightning's tutorial on fine-tuning transformers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network

    def forward(self, **inputs: Any) -> Any:
        """What the network gives."""
        return self.model(**inputs)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self(**batch)[0]

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log("val_loss", self(**batch)[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def _collate(kind: str) -> Any:
    def collate(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        if kind == "classes":
            batch["labels"] = ids[:, 0] % 2
        else:
            batch["labels"] = ids.masked_fill(ids == 0, -100)
        return batch

    return collate


def _loader(kind: str) -> DataLoader[torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    rows = [torch.randint(1, 96, (length,), generator=made) for length in (5, 9, 12, 7, 8, 12, 6, 11, 10, 12)]
    return DataLoader(rows, batch_size=4, collate_fn=_collate(kind))  # type: ignore[arg-type]


def _fit(network: nn.Module, kind: str, callbacks: list[Any], folder: Path) -> nn.Module:
    module = Finetuner(network)
    L.Trainer(**options(callbacks, folder)).fit(module, _loader(kind), _loader(kind))
    return module


@model()
def bert(callbacks: list[Any], folder: Path) -> nn.Module:
    """BERT that classifies, with labels."""
    config = hf.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    return _fit(hf.BertForSequenceClassification(config), "classes", callbacks, folder)


@model()
def gpt2(callbacks: list[Any], folder: Path) -> nn.Module:
    """GPT-2 with labels; its cache stays on, as the default is."""
    config = hf.GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    return _fit(hf.AutoModelForCausalLM.from_config(config), "language", callbacks, folder)


@model()
def t5(callbacks: list[Any], folder: Path) -> nn.Module:
    """T5 with labels."""
    config = hf.T5Config(
        vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return _fit(hf.AutoModelForSeq2SeqLM.from_config(config), "language", callbacks, folder)


@model()
def llama(callbacks: list[Any], folder: Path) -> nn.Module:
    """Llama with labels."""
    config = hf.LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return _fit(hf.AutoModelForCausalLM.from_config(config), "language", callbacks, folder)


@model()
def vit(callbacks: list[Any], folder: Path) -> nn.Module:
    """ViT that classifies images, with labels."""
    config = hf.ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    made = torch.Generator().manual_seed(1)
    rows = [{"pixel_values": torch.rand(3, 32, 32, generator=made), "labels": n % 2} for n in range(10)]
    loader: Any = DataLoader(rows, batch_size=4)  # type: ignore[arg-type]
    module = Finetuner(hf.AutoModelForImageClassification.from_config(config))
    L.Trainer(**options(callbacks, folder)).fit(module, loader, loader)
    return module
