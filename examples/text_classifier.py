"""A text classifier: batches are dicts, and as long as their longest sentence.

    python examples/text_classifier.py

A tiny BERT of the package ``transformers``, with random weights and nothing downloaded, learns whether a sentence
praises or complains. Half a minute on two CPU cores, no GPU needed. The batch of the artifact's inputs is what training
showed, and that ids and mask always have the same length is found out as well; which lengths there will be is said.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

from lightning_trt_windows import DimRange, RangeOptions, WindowsExport

PRAISE = ["good", "great", "lovely", "fine", "bright", "warm"]
BLAME = ["bad", "awful", "broken", "dull", "cold", "late"]
REST = [
    "the",
    "a",
    "this",
    "film",
    "soup",
    "train",
    "was",
    "is",
    "very",
    "quite",
    "and",
    "but",
    "we",
    "they",
    "had",
    "it",
]
WORDS = ["[PAD]", "[CLS]", *PRAISE, *BLAME, *REST]
IDS = {word: number for number, word in enumerate(WORDS)}

Example = tuple[str, int]


def sentences(count: int, seed: int) -> list[Example]:
    """Sentences of 4 to 24 words, with label 1 where more of them praise than blame."""
    chance, made = random.Random(seed), []
    for _ in range(count):
        kind = chance.randrange(2)
        strong = chance.choices((BLAME, PRAISE)[kind], k=chance.randint(2, 4)) + chance.choices((PRAISE, BLAME)[kind])
        words = strong + chance.choices(REST, k=chance.randint(1, 19))
        chance.shuffle(words)
        made.append((" ".join(words), kind))
    return made


def batch_of(examples: Sequence[Example]) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` as int64 [batch, length of the longest], ``labels`` as int64 [batch]."""
    rows = [[IDS["[CLS]"], *(IDS[word] for word in text.split())] for text, _ in examples]
    length = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [IDS["[PAD]"]] * (length - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        "labels": torch.tensor([label for _, label in examples]),
    }


class Classifier(L.LightningModule):
    """BERT with two layers."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What is exported: scores [batch, 2] of ids and mask [batch, length]."""
        scores: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).logits
        return scores

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy."""
        return torch.nn.functional.cross_entropy(self(batch["input_ids"], batch["attention_mask"]), batch["labels"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log ``accuracy``."""
        right = self(batch["input_ids"], batch["attention_mask"]).argmax(1) == batch["labels"]
        self.log("accuracy", right.float().mean(), batch_size=len(right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), 3e-3)


def loader(examples: list[Example], shuffle: bool) -> DataLoader[Any]:
    """Batches of 16."""
    return DataLoader(examples, 16, shuffle=shuffle, collate_fn=batch_of)  # type: ignore[arg-type]


def main() -> None:
    """Train, export, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--directory", default="demo_runs/text")
    arguments = parser.parse_args()
    L.seed_everything(7, verbose=False)
    # one sentence of a few words must fit as well, and longer ones than there were
    lengths = RangeOptions(dynamic={"input_ids.1": DimRange(4, 24, 64)})
    windows = WindowsExport(
        ranges=lengths, on_error="raise", extra={"vocabulary": WORDS, "labels": ["blame", "praise"]}
    )
    best = ModelCheckpoint(arguments.directory, monitor="accuracy", mode="max", filename="best-{epoch}")
    trainer = L.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[best, windows],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), loader(sentences(480, seed=1), True), loader(sentences(160, seed=2), False))
    print(f"accuracy {best.best_model_score:.1%} on sentences that were not trained on")
    for artifact in windows.artifacts:
        print(artifact)
        for spec in artifact.manifest.inputs:
            (batch, length), symbols = zip(spec.min, spec.max), spec.symbols
            print(f"  {spec.name}: {symbols[0]} {batch[0]} to {batch[1]}, {symbols[1]} {length[0]} to {length[1]}")


if __name__ == "__main__":
    main()
