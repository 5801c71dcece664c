"""TensorRT-RTX itself: what it does not build."""

from __future__ import annotations

import torch
from torch.fx import Node

from lightning_trt_windows._compat.versions import Workaround

__all__ = ["NO_TRANSPOSED_BFLOAT16", "is_transposed_convolution"]

_TRANSPOSED = 6
"""Position of the flag among the arguments of ``convolution``."""

NO_TRANSPOSED_BFLOAT16 = Workaround(
    upstream="tensorrt-rtx",
    since="1.6",
    until=None,
    reason="Transposed convolutions in bfloat16, of one, two and three dimensions, are not built ('Could not infer "
    "output types for operation'): they compute in float32.",
    link="https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/index.html",
    test="test_tensorrt_rtx.py::test_transposed_convolutions_in_bfloat16_are_still_not_built",
    delete="TensorRT-RTX builds them, with every supported torch-tensorrt-rtx.",
)


def is_transposed_convolution(node: Node) -> bool:
    """Whether ``node`` is what ``NO_TRANSPOSED_BFLOAT16`` is about, in any type."""
    return node.target is torch.ops.aten.convolution.default and bool(node.args[_TRANSPOSED])
