"""NumPy arrays that ``forward`` makes of tensors: a trace has no values to make them of.

Models keep such arrays to be looked at afterwards (attention weights, the importance of features), and nothing that
they return depends on them. While a module is traced it gets a stand-in, which can be kept and raises when it is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from lightning_trt_windows.modules.varying import Varying, unread

__all__ = ["numpy_values_unread"]

_WAY_ON = "Compute with the tensor in its place, or return before it where torch.compiler.is_compiling()"


@contextlib.contextmanager
def numpy_values_unread() -> Iterator[None]:
    """Let ``x.numpy()`` give a stand-in in the block where ``x`` is a tensor of a trace."""
    own = "numpy" in torch.Tensor.__dict__
    real: Any = torch.Tensor.numpy

    def stand_in(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, (FakeTensor, FunctionalTensor)):
            array = Varying("what .numpy() gives", f"{self.dtype} {list(self.shape)}", _WAY_ON)
            return unread(array, numpy.ndarray)
        return real(self, *args, **kwargs)

    torch.Tensor.numpy = stand_in  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        if own:
            torch.Tensor.numpy = real  # type: ignore[method-assign]
        else:
            del torch.Tensor.numpy
