"""Workarounds for DeepSpeed, which is imported by nothing here: a training with it has done so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lightning_trt_windows._compat.versions import Workaround

__all__ = ["LINEAR_STAYS_REPLACED", "linear_of_torch"]

LINEAR_STAYS_REPLACED = Workaround(
    upstream="deepspeed",
    since="0.19",
    until=None,
    reason="ZeRO 3 replaces torch.nn.functional.linear in the whole process and never puts it back: what is captured "
    "from then on has a product of matrices and a transposition for each nn.Linear, and other engines than in a "
    "process without such a training.",
    link="https://github.com/deepspeedai/DeepSpeed/blob/v0.19.8/deepspeed/runtime/zero/partition_parameters.py",
    test="test_deepspeed.py::test_linear_still_stays_replaced",
    delete="torch.nn.functional.linear is PyTorch's own after a deepspeed.zero.Init has ended.",
)


@contextlib.contextmanager
def linear_of_torch() -> Iterator[None]:
    """Let ``torch.nn.functional.linear`` be PyTorch's own in the block, where DeepSpeed has replaced it."""
    from torch.nn import functional

    found = functional.linear
    if not str(getattr(found, "__module__", "")).startswith("deepspeed."):
        yield
        return
    import torch

    functional.linear = torch._C._nn.linear
    try:
        yield
    finally:
        functional.linear = found
