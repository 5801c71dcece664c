"""BatchNorm over sequences of any length, which upstream's converter cannot convert: in words that it can.

The converter makes a picture of a sequence and wants to know its length. Without one it fails, and the operator would
fall back to PyTorch, between two engines. In inference BatchNorm is one multiplication and one addition per channel.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["SEQUENCE_DECOMPOSITIONS"]

_SEQUENCE = 3
"""Batch, channels and length."""


def _batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    momentum: float,
    eps: float,
) -> Any:
    if x.dim() != _SEQUENCE or isinstance(x.shape[-1], int):
        return NotImplemented
    # as eager does: statistics of float16 are computed with in float32
    wide = torch.promote_types(variance.dtype, torch.float32)
    scale = torch.rsqrt(variance.to(wide) + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    result = (x * scale.unsqueeze(-1) + shift.unsqueeze(-1)).to(x.dtype)
    # the two statistics that only training returns
    return result, x.new_empty(0), x.new_empty(0)


SEQUENCE_DECOMPOSITIONS = {torch.ops.aten._native_batch_norm_legit_no_training.default: _batch_norm}
"""Operator to its decomposition, for ``ExportedProgram.run_decompositions``; other cases are left as they are."""
