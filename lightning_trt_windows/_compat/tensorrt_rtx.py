"""TensorRT-RTX itself: what it was seen to compute wrongly, which can only be said, and what it does not build."""

from __future__ import annotations

import torch
from torch.fx import Node

from lightning_trt_windows._compat.versions import Workaround

__all__ = ["NO_TRANSPOSED_BFLOAT16", "WRONG_NUMBERS", "cautions", "is_transposed_convolution"]

_TRANSPOSED = 6
"""Position of the flag among the arguments of ``convolution``."""

WRONG_NUMBERS = Workaround(
    upstream="tensorrt-rtx",
    since="1.4",
    until="1.6",
    reason="Engines of 1.4.0 for graph convolutions (index_add), MobileNetV3 and models that autocast inside forward "
    "computed wrong numbers on an H200, those of 1.6.1 right ones; 1.5 was not run.",
    link="https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/index.html",
    test="gpu/test_zoo_rehearsal.py::test_zoo_on_a_gpu",
    delete="No supported torch-tensorrt-rtx pairs with TensorRT-RTX 1.4 or 1.5: 2.13 is no longer supported.",
)

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
    """Whether ``node`` is what :data:`NO_TRANSPOSED_BFLOAT16` is about, in any type."""
    return node.target is torch.ops.aten.convolution.default and bool(node.args[_TRANSPOSED])


def cautions(version: str | None) -> tuple[str, ...]:
    """What to know of engines that TensorRT-RTX ``version`` builds: sentences, most often none."""
    if not WRONG_NUMBERS.needed_by(version):
        return ()
    return (
        f"Built with TensorRT-RTX {version}. {WRONG_NUMBERS.reason} Compare with eager on the GPU you ship to, or "
        "export with torch-tensorrt-rtx 2.14, which brings TensorRT-RTX 1.6.",
    )
