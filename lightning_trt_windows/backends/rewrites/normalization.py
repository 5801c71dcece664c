"""Normalisations in words that convert right: log-softmax, BatchNorm without running statistics, flat inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["NORMALIZATION"]

aten = torch.ops.aten


def _log_softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """Never the logarithm of a softmax, which is -inf from -104 on."""
    dtype = torch.float32 if half_to_float else x.dtype
    # as eager does: float16 is summed in float32
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    below = wide - wide.amax(dim, keepdim=True)
    return (below - below.exp().sum(dim, keepdim=True).log()).to(dtype)


def _softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Any:
    """TensorRT's softmax wants two axes."""
    if x.dim() > 1:
        return NotImplemented
    if x.dim() == 0:
        return torch.ones_like(x, dtype=torch.float32 if half_to_float else x.dtype)
    return aten._softmax.default(x.unsqueeze(0), 1, half_to_float).squeeze(0)


def _statistics_of_the_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> Any:
    axes = [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    scale = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    result = centred * scale
    if weight is not None:
        result = result * weight.reshape(shape)
    if bias is not None:
        result = result + bias.reshape(shape)
    # the statistics as a CPU gives them, where programs are captured
    return result.to(x.dtype), mean.reshape(-1).to(x.dtype), scale.reshape(-1).to(x.dtype)


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: Any, channels: Any, pixels: Any, groups: int, eps: float
) -> Any:
    """Upstream's converter wants an axis behind the channels."""
    if x.dim() != 2:
        return NotImplemented
    result, mean, scale = aten.native_group_norm.default(
        x.unsqueeze(-1), weight, bias, n, channels, pixels, groups, eps
    )
    return result.squeeze(-1), mean, scale


NORMALIZATION = {
    aten._log_softmax.default: _log_softmax,
    aten._softmax.default: _softmax,
    aten._native_batch_norm_legit.no_stats: _statistics_of_the_batch,
    aten.native_group_norm.default: _group_norm,
}
"""Operator to its decomposition; ``NotImplemented`` leaves a case as it is."""
