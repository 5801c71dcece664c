"""Operators that PyTorch has for CPUs only: what falls back to PyTorch runs on the GPU, where they do not exist."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.fx import GraphModule

from lightning_trt_windows.backends.nodes import model_line, operator_name
from lightning_trt_windows.errors import CompileError

__all__ = ["ON_CPUS_ONLY", "refuse_cpu_operators"]

_COUNTING = "torch.histc, and torch.bincount of torch.bucketize, count on GPUs as well"
_FLOAT = (
    "Export the module before its layers are quantised for CPUs; docs/quantisation.md has what engines take instead"
)
_AS_TENSORS = "Leave the tensors of forward as they are (no to_mkldnn)"
_ATTENTION = "Call torch.nn.functional.scaled_dot_product_attention in its place"

ON_CPUS_ONLY = {
    "aten::_add_relu": "Write it as (a + b).relu()",
    "aten::_convert_weight_to_int4pack_for_cpu": _FLOAT,
    "aten::_dyn_quant_matmul_4bit": _FLOAT,
    "aten::_dyn_quant_pack_4bit_weight": _FLOAT,
    "aten::_empty_affine_quantized": _FLOAT,
    "aten::_empty_per_channel_affine_quantized": _FLOAT,
    "aten::_histogramdd_bin_edges": _COUNTING,
    "aten::_histogramdd_from_bin_cts": _COUNTING,
    "aten::_histogramdd_from_bin_tensors": _COUNTING,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _ATTENTION,
    "aten::_spdiags": "torch.diag_embed makes dense matrices on GPUs as well",
    "aten::_upsample_lanczos2d_aa": "mode='bicubic' with antialias=True is computed on GPUs as well",
    "aten::_weight_int4pack_mm_for_cpu": _FLOAT,
    "aten::from_file": "Register its values as a buffer",
    "aten::histogram": _COUNTING,
    "aten::mkldnn_rnn_layer": "Use torch.nn.LSTM",
    "aten::quantize_per_tensor": _FLOAT,
    "aten::quantized_gru": _FLOAT,
    "aten::quantized_lstm": _FLOAT,
    "aten::slow_conv3d_forward": "Use torch.nn.functional.conv3d",
    "aten::to_mkldnn": _AS_TENSORS,
}
"""Operator, without its overload, to what can be done about it. A test holds this against what PyTorch has."""
_NAMESPACES = {"mkldnn": _AS_TENSORS, "mkldnn_prepacked": _AS_TENSORS, "onednn": _FLOAT, "quantized": _FLOAT}


def refuse_cpu_operators(graphs: Iterable[GraphModule]) -> None:
    """Refuse what would fall back to PyTorch and cannot run there.

    Args:
        graphs: What is not in engines.

    Raises:
        CompileError: There is an operator that exists on CPUs only.
    """
    for graph in graphs:
        for node in graph.graph.nodes:
            target = node.target
            if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
                continue
            name = target._schema.name
            remedy = ON_CPUS_ONLY.get(name) or _NAMESPACES.get(target.namespace)
            if remedy is not None:
                raise CompileError(
                    f"{operator_name(node)} only exists on CPUs{model_line(node)}: no engine takes it, and a PC runs "
                    f"what engines do not take on its GPU. {remedy}"
                )
