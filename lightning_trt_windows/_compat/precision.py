"""Products and convolutions in full float32, whichever of PyTorch's two ways the user set their precision with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch

from lightning_trt_windows._compat.versions import Workaround

__all__ = ["PRECISION_HAS_TWO_WAYS", "exact_float32"]

PRECISION_HAS_TWO_WAYS = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="torch.get_float32_matmul_precision and torch.backends.cudnn.allow_tf32 raise once fp32_precision was set "
    "otherwise, so that what a user chose can be neither read nor put back through them; they also write over what "
    "fp32_precision inherits.",
    link="https://github.com/pytorch/pytorch/blob/v2.14.0/aten/src/ATen/Context.cpp",
    test="test_precision.py::test_one_way_still_raises_after_the_other",
    delete="The older functions are gone, and fp32_precision says what a setting inherits.",
)

_GENERIC = ("generic", "all")
_BACKENDS = (("cuda", "all"), ("mkldnn", "all"))
_OPERATORS = tuple((backend, operator) for backend in ("cuda", "mkldnn") for operator in ("matmul", "conv", "rnn"))
_UNSET, _EXACT, _TF32 = "none", "ieee", "tf32"


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in full float32 in the block, whatever the training chose, and let both ways be read in it.

    With less than ``"highest"`` GPUs multiply in TF32 and CPUs in bfloat16; cuDNN has a switch of its own.
    ``torch.export`` reads the older way of it and fails where the two contradict each other. Afterwards every setting
    is what it was, also whether it was set or inherited.
    """
    settings = _settings()
    try:
        matmul, cudnn = _older()
    except BaseException:
        _put(settings)
        raise
    try:
        torch.set_float32_matmul_precision("highest")
        # not torch.backends.cudnn.allow_tf32, which cannot be set after torch.backends.disable_global_flags
        torch._C._set_cudnn_allow_tf32(False)
        _put(dict.fromkeys(_OPERATORS, _EXACT))
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch._C._set_cudnn_allow_tf32(cudnn)
        _put(settings)


def _settings() -> dict[tuple[str, str], str]:
    """Each setting as it was set; ``"none"`` where it inherits: an operator from its backend, that from the generic.

    What is read of an operator is what it inherits, so what it could inherit from is taken away first, and put back.
    """
    found: dict[tuple[str, str], str] = {}
    try:
        for level in ((_GENERIC,), _BACKENDS, _OPERATORS):
            found |= {place: torch._C._get_fp32_precision_getter(*place) for place in level}
            if level is not _OPERATORS:
                _put(dict.fromkeys(level, _UNSET))
    finally:
        _put({place: value for place, value in found.items() if place not in _OPERATORS})
    return found


def _older() -> tuple[str, bool]:
    """What the older way was set to, which is read where the newer one agrees with it. Leaves the newer one changed."""
    _put(dict.fromkeys(_OPERATORS, _EXACT))
    matmul = torch.get_float32_matmul_precision()
    _put({("cuda", "conv"): _TF32, ("cuda", "rnn"): _TF32})
    try:
        return matmul, torch._C._get_cudnn_allow_tf32()
    except RuntimeError:
        return matmul, False


def _put(settings: Mapping[tuple[str, str], str]) -> None:
    for place, value in settings.items():
        torch._C._set_fp32_precision_setter(*place, value)
