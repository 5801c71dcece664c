"""``io_precision="engine"``: an artifact and its module are called with tensors of different types, and compared.

Everything here leaves tensors alone where both have the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from lightning_trt_windows.modules.dtypes import dtype_of, is_real
from lightning_trt_windows.runtime.loaded import LoadedModule
from lightning_trt_windows.settings import PRECISION_DTYPES

__all__ = ["as_artifact_has", "as_module_has", "taking_the_modules_types"]


def as_artifact_has(loaded: LoadedModule, value: Any) -> Any:
    """``value`` with its floating-point tensors in the type of the artifact's inputs and outputs."""
    dtype = _own_dtype(loaded)
    return value if dtype is None else _converted(value, dtype)


def as_module_has(loaded: LoadedModule, module: Callable[..., Any], value: Any) -> Any:
    """``value`` with its floating-point tensors in the type of the module's weights; functions take what is given."""
    if _own_dtype(loaded) is None or not isinstance(module, nn.Module):
        return value
    held = (tensor.dtype for tensor in [*module.parameters(), *module.buffers()] if is_real(tensor))
    return _converted(value, next(held, torch.float32))


def taking_the_modules_types(loaded: LoadedModule) -> Callable[..., Any]:
    """``loaded``, or a function that converts what it is called with."""
    if _own_dtype(loaded) is None:
        return loaded

    def call(*args: Any, **kwargs: Any) -> Any:
        return loaded(*as_artifact_has(loaded, args), **as_artifact_has(loaded, kwargs))

    return call


def _own_dtype(loaded: LoadedModule) -> torch.dtype | None:
    """Type of the artifact's floating-point inputs and outputs; ``None`` where it is the module's."""
    options = loaded.manifest.backend.options
    precision = str(options.get("precision"))
    known = options.get("io_precision") == "engine" and precision in PRECISION_DTYPES
    return dtype_of(precision) if known else None


def _converted(value: Any, dtype: torch.dtype) -> Any:
    return tree_map_only(torch.Tensor, lambda t: t.to(dtype) if is_real(t) else t, value)
