"""Normalisations, reductions, functions, indices and attention give what they give in PyTorch, in engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.evaluating import check_values
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

X = torch.linspace(-2, 3, 20).reshape(4, 5)
BATCH = Dim("batch", min=1, max=8)
TWO = Dim("batch", min=2, max=8)
LENGTH = Dim("length", min=2, max=9)

OF_A_BATCH: dict[str, Callable[[Tensor], Any]] = {
    "log_softmax": lambda x: F.log_softmax(x * 100, -1),
    "logsumexp": lambda x: (x * 50).logsumexp(1),
    "max, min": lambda x: (*x.max(1), *x.min(1)),
    "all": lambda x: ((x > 0).all(1), (x > -9).all()),
    "var, std_mean": lambda x: (x.var(1), *torch.std_mean(x, 1), *torch.var_mean(x, 1, correction=0)),
    "log1p": lambda x: (torch.log1p(x.abs() * 1e-5), torch.log1p(x.abs() * 100)),
    "expm1": lambda x: (torch.expm1(x * 1e-5), torch.expm1(x * 3)),
    "exp2": torch.exp2,
    "softplus": lambda x: (F.softplus(x * 5, beta=2, threshold=1), F.softplus(x * 50)),
    "cumprod": lambda x: x.cumprod(1),
    "bucketize": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5, 1.0])),
    "isin": lambda x: torch.isin(x, X[0]),
    "norms": lambda x: (x.norm(dim=1), F.normalize(x, dim=1)),
    "tril, roll, repeat": lambda x: (x.tril(), x.roll(1, 1), x.repeat_interleave(2, 1)),
    "sort, topk": lambda x: (*x.topk(3, 1), x.argsort(1)),
    "empty_like": lambda x: torch.empty_like(x).fill_(2.0) + x,
    "layer norm": lambda x: F.layer_norm(x, [5]),
    "layer norm's statistics": lambda x: torch.native_layer_norm(x, [5], None, None, 1e-5),
}


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_with_a_varying_batch(name: str) -> None:
    """At one, at a few and at many."""
    check_values(OF_A_BATCH[name], X, dims=({0: BATCH},))


def test_over_the_batch() -> None:
    """The number of elements is the batch's, not the trace's."""
    check_values(lambda x: (x.std(0), x.var(0), x.std()), X, dims=({0: TWO},))
    check_values(nn.BatchNorm2d(3, track_running_stats=False), torch.randn(4, 3, 5, 5) * 10 + 3, dims=({0: BATCH},))
    check_values(nn.BatchNorm1d(3, track_running_stats=False), torch.randn(4, 3, 5))


def test_of_few_axes() -> None:
    """Where TensorRT's layers want more of them."""
    check_values(lambda x: torch.softmax(x, 0), X[0])
    check_values(lambda x: F.log_softmax(x, 0), X[0])
    check_values(nn.GroupNorm(2, 6), torch.randn(4, 6))
    query, key, mask = torch.randn(2, 3, 8), torch.randn(2, 6, 8), torch.randn(2, 3, 6)
    check_values(lambda q, k: F.scaled_dot_product_attention(q, k, k), query, key)
    check_values(lambda q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m), query, key, mask)


def test_functions_of_two() -> None:
    """With zeros of both signs, infinities and NaN."""
    y = torch.tensor([-0.0, 0.0, -0.0, 0.0, 1, -1, 2.0, 0, -3, float("inf"), float("nan")])
    x = torch.tensor([-1.0, -1, 1, 1, 0, 0, -1, 0.0, 2, -float("inf"), float("inf")])
    check_values(torch.atan2, y[:9], x[:9])
    check_values(lambda y, x: (torch.hypot(y, x), torch.fmax(y, x), torch.fmin(y, x)), y, x)
    check_values(torch.copysign, x[:9], y[:9])


def test_causal_attention() -> None:
    """The mask is aligned with the first query and the first key, as many as there are of each."""

    def causal(q: Tensor, k: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, k, is_causal=True)

    query, key = torch.randn(2, 2, 3, 8), torch.randn(2, 2, 6, 8)
    check_values(causal, query, key)
    check_values(causal, key, query)
    check_values(causal, key, key)
    check_values(causal, query, key, dims=({2: Dim("queries", min=2, max=4)}, {2: Dim("keys", min=5, max=9)}))


def last_token(h: Tensor, ids: Tensor) -> Tensor:
    """The token before the first padding, or the last one."""
    return h[torch.arange(h.shape[0]), ids.eq(0).int().argmax(1) - 1] * 1


def test_indices_from_the_end() -> None:
    """Indices that are only known at run time, and the last row of an axis that varies."""
    h, ids = torch.randn(4, 5, 6), torch.ones(4, 5, dtype=torch.int64)
    dims = {0: BATCH, 1: LENGTH}
    check_values(last_token, h, ids, dims=(dims, dims))
    check_values(lambda h: h[:, -1] * 1, h, dims=(dims,))
    check_values(lambda x, i: (x[i] * 1, x[:, i] * 1), X, torch.tensor([[0, -1], [2, -3]]))


def test_gather() -> None:
    """Along an axis, of sizes that vary."""
    index = torch.tensor([[0, 1, 4]]).expand(4, 3).contiguous()
    check_values(lambda x, i: x.gather(1, i) * 1, X, index, dims=({0: BATCH}, {0: BATCH}))
    check_values(lambda x, i: x.gather(1, i) * 1, X, index, dims=({1: Dim("length", min=5, max=9)}, None))


def test_distances() -> None:
    """Of every pair of rows, in every norm."""
    for p in (1.0, 2.0, 3.0, float("inf")):
        check_values(lambda x, y, p=p: torch.cdist(x, y, p), X, X[:3] + 0.5, dims=({0: BATCH}, None))


def test_losses_of_embeddings() -> None:
    """They make empty tensors, which upstream does on a GPU."""
    target = torch.tensor([1, -1, 1, -1])
    check_values(F.cosine_embedding_loss, X, X.flip(0), target)
    check_values(F.hinge_embedding_loss, X, torch.ones(4, 5))
