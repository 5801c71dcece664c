"""Which operator computes in which precision: CUDA autocast's lists, on the operators that lowering leaves.

An operator that is on no list, a custom one for instance, computes in the types it was captured with.
"""

from __future__ import annotations

import enum
import math

import torch
from torch import Tensor
from torch._ops import OpOverload

__all__ = ["ATTENTION", "BATCH_NORM", "FACTORIES", "Rule", "fits", "loses_little", "rule_of"]


class Rule(enum.Enum):
    """How an operator's precision is chosen."""

    LOW = "low"
    """Compute in the chosen precision, whatever comes in: what tensor cores are for."""
    SINGLE = "single"
    """Compute in float32, whatever comes in: sums and exponentials overflow float16 and lose digits in bfloat16."""
    FOLLOWS = "follows"
    """Compute in the chosen precision where all inputs have it, else in float32."""
    AS_WRITTEN = "as written"
    """Compute in the types that it was captured with."""


_LARGEST_WEIGHT = {torch.float16: 64.0}
"""Up to here a constant outside matrix products is rounded: to float16, which moves it by less than 1 / 32. Never to
bfloat16, whose 8 bits cost more than the time they save: what weights are added to then stays in float32, as autocast
has it (ViT: error 6e-3 instead of 9e-3)."""
ATTENTION = "scaled_dot_product_attention"
BATCH_NORM = "_native_batch_norm_legit_no_training"
FACTORIES = {"full": 1, "full_like": 1, "scalar_tensor": 0}
"""Operators that make a tensor of one number, and which argument is the number."""

_LOW = """
    addbmm addmm addmv baddbmm bmm chain_matmul conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d convolution dot einsum embedding gru linear lstm matmul mm mv rnn_relu rnn_tanh
    scaled_dot_product_attention
"""
_SINGLE = """
    acos acosh asin atanh cdist _cdist_forward cosh cosine_similarity cumprod cumsum dist erfinv _euclidean_dist exp
    exp2 expm1 _fused_rms_norm group_norm index_add instance_norm layer_norm linalg_vector_norm log log10 log1p log2
    logcumsumexp logsumexp _log_softmax log_softmax mean nansum _native_batch_norm_legit native_batch_norm
    native_group_norm native_layer_norm norm pow prod reciprocal renorm rms_norm rsqrt scatter_add scatter_reduce sinh
    _softmax softmax softplus std std_mean sum tan var var_mean
"""
_FOLLOWS = """
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d alias amax amin argmax argmin as_strided avg_pool1d
    avg_pool2d avg_pool3d cat clone constant_pad_nd contiguous detach diagonal expand flatten flip gather glu
    hardswish index index_copy index_put index_select masked_fill max max_pool1d max_pool2d max_pool2d_with_indices
    max_pool3d max_pool3d_with_indices min movedim narrow pad permute pixel_shuffle pixel_unshuffle prelu
    _prelu_kernel reflection_pad1d reflection_pad2d reflection_pad3d repeat replication_pad1d replication_pad2d
    replication_pad3d reshape _reshape_copy roll scatter select select_scatter slice slice_scatter sort split
    split_with_sizes squeeze stack t tile topk transpose tril triu unbind unfold _unsafe_index _unsafe_view unsqueeze
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d view where
    _native_batch_norm_legit_no_training
"""
_RULES = {
    name: rule
    for names, rule in ((_LOW, Rule.LOW), (_SINGLE, Rule.SINGLE), (_FOLLOWS, Rule.FOLLOWS))
    for name in names.split()
}


def rule_of(target: OpOverload) -> Rule:
    """The rule for ``target``."""
    namespace, name = target._schema.name.split("::")
    if namespace == "aten":
        return _RULES.get(name, Rule.FOLLOWS if torch.Tag.pointwise in target.tags else Rule.AS_WRITTEN)
    return Rule.AS_WRITTEN


def fits(value: Tensor | float, dtype: torch.dtype) -> bool:
    """Whether a number, or the largest of a tensor, is about the same in ``dtype``, with room to add to it."""
    if isinstance(value, Tensor):
        size = float(value.abs().nan_to_num(0.0, 0.0, 0.0).max()) if value.numel() else 0.0
    else:
        size = abs(value) if math.isfinite(value) else 0.0
    limits = torch.finfo(dtype)
    return size == 0 or limits.tiny <= size <= limits.max / 2


def loses_little(value: Tensor | float, dtype: torch.dtype) -> bool:
    """Whether a constant can be rounded to ``dtype``: an exact one, or weights; large ones are coordinates, anchors."""
    if not fits(value, dtype):
        return False
    tensor = torch.as_tensor(value)
    exact = torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)
    return exact or bool((tensor.abs() <= _LARGEST_WEIGHT.get(dtype, 0.0)).all())
