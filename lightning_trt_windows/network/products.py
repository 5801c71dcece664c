"""Layers of matrix products, and attention.

Sources: NVIDIA's operator documentation, the pages MatrixMultiply and Einsum, and ``IAttention`` in the API
documentation. Products of float16 and bfloat16 are accumulated in float32 and rounded at the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_trt_windows.network.call import Call, layer

__all__ = ["attention"]


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


@layer("MATRIX_MULTIPLY")
def matrix_multiply(call: Call) -> list[Tensor]:
    """``op0(a) @ op1(b)``; each of them may be transposed, or be vectors."""
    one, other = call.tensor(0), call.tensor(1)
    operations = [call.layer.op0.name, call.layer.op1.name]
    dtype = one.dtype
    left = one.unsqueeze(-2) if operations[0] == "VECTOR" else one
    right = other.unsqueeze(-1) if operations[1] == "VECTOR" else other
    left = left.transpose(-1, -2) if operations[0] == "TRANSPOSE" else left
    right = right.transpose(-1, -2) if operations[1] == "TRANSPOSE" else right
    if left.dim() != right.dim():
        call.warn(f"its inputs have {left.dim()} and {right.dim()} axes")
    result = _wide(left) @ _wide(right)
    if operations[1] == "VECTOR":
        result = result.squeeze(-1)
    if operations[0] == "VECTOR":
        result = result.squeeze(-1 if operations[1] == "VECTOR" else -2)
    return [result.to(dtype)]


@layer("EINSUM")
def einsum(call: Call) -> list[Tensor]:
    """Einstein's sum of products."""
    inputs = [call.tensor(index) for index in range(call.layer.num_inputs)]
    return [torch.einsum(call.layer.equation, *map(_wide, inputs)).to(inputs[0].dtype)]


@layer("ATTENTION_OUTPUT")
def attention(call: Call) -> list[Tensor]:
    """Softmax of ``query @ key^T``, plus or under the mask, times ``value``; scaling is the network's own business.

    Causal masks are aligned as ``causal_kind`` says: LOWER_RIGHT lets the last query see every key, UPPER_LEFT the
    first query the first key only. Where there are more query heads than key heads, groups of them share one.
    The inputs of the layer here are those of the attention: query, key, value.
    """
    own = call.layer.attention
    query, key, value = (call.named(own.get_input(index).name) for index in range(3))
    if own.norm_op.name != "SOFTMAX":
        raise call.unknown(own.norm_op)
    if query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = _wide(query) @ _wide(key).transpose(-1, -2)
    kind = _causal_kind(own)
    queries, keys = scores.shape[-2:]
    if kind != "NONE":
        diagonal = keys - queries if kind == "LOWER_RIGHT" else 0
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(diagonal)
        scores = scores.masked_fill(~seen, -math.inf)
    if own.mask is not None:
        mask = call.named(own.mask.name)
        is_flag = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -math.inf) if is_flag else scores + mask.to(scores.dtype)
    return [(torch.softmax(scores, -1) @ _wide(value)).to(query.dtype)]


def _causal_kind(own: object) -> str:
    kind = getattr(own, "causal_kind", None)
    if kind is not None:
        return str(kind.name)
    # before TensorRT-RTX 1.5 there is one flag, which aligns at the upper left
    return "UPPER_LEFT" if getattr(own, "causal", False) else "NONE"
