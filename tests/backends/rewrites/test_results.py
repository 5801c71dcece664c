"""What converters give has the axes and the type that were traced."""

from __future__ import annotations

import torch
from support.evaluating import check_values
from torch.export import Dim

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)


def test_numbers_without_axes() -> None:
    """A mean has no axes, whatever is added to it."""
    check_values(lambda x: (x.mean() + 1, x.mean(), x.sum() * 2 > 3), X, dims=({0: BATCH},))


def test_types() -> None:
    """Places and sums are int64, comparisons booleans."""
    check_values(lambda x: (x.argmax(1), x.topk(2, 1)[1], (x > 0).sum(), x.sum() > 0), X, dims=({0: BATCH},))
