"""Attention gives in an engine what it gives in PyTorch: masks, and fewer axes than TensorRT's layer takes."""

from __future__ import annotations

import torch
from support.evaluating import check_values
from torch import Tensor
from torch.export import Dim
from torch.nn import functional as F


def test_causal_masks() -> None:
    """The mask is aligned with the first query and the first key, as many as there are of each."""

    def causal(q: Tensor, k: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, k, is_causal=True)

    query, key = torch.randn(2, 2, 3, 8), torch.randn(2, 2, 6, 8)
    check_values(causal, query, key)
    check_values(causal, key, query)
    check_values(causal, key, key)
    check_values(causal, query, key, dims=({2: Dim("queries", min=2, max=4)}, {2: Dim("keys", min=5, max=9)}))


def test_of_few_axes() -> None:
    """Where TensorRT's layer wants four of them."""
    query, key, mask = torch.randn(2, 3, 8), torch.randn(2, 6, 8), torch.randn(2, 3, 6)
    check_values(lambda q, k: F.scaled_dot_product_attention(q, k, k), query, key)
    check_values(lambda q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m), query, key, mask)
