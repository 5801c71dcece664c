"""Whether a module would be traced to the same program again: a description of all that a trace can depend on.

Two equal descriptions mean the same classes, the same structure, shapes and dtypes, and the same values in every
attribute. What cannot be described (an open file, an object of a C extension) makes the whole module indescribable:
then nothing can be shown, and it is traced anew. Weights are not part of it: they come from the checkpoint.
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import types
from typing import Any

import torch
from torch import nn

from lightning_trt_windows.modules.dtypes import tensor_bytes

__all__ = ["description"]

_WEIGHTS = ("_parameters", "_buffers", "_modules", "training", "_non_persistent_buffers_set")
_LIGHTNING = (
    "_trainer",
    "_fabric",
    "_fabric_optimizers",
    "_example_input_array",
    "_current_fx_name",
    "_param_requires_grad_state",
    "_metric_attributes",
    "_compiler_ctx",
    "_device",
)
"""What Lightning itself keeps on a module and no forward depends on."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, torch.layout)
_BY_IDENTITY = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.MethodWrapperType)
_PLAIN_CONTAINERS = (dict, collections.OrderedDict, list, tuple, set)
_LARGEST = 1 << 20
"""Elements of a tensor that is compared by value; larger ones cannot be shown to be unchanged for nothing."""
_DEEPEST = 12


class _CannotTellError(Exception):
    """An attribute that cannot be described."""


def description(module: nn.Module) -> Any:
    """A value that is equal for modules that trace alike; ``None`` where nothing can be shown.

    Hold it only as long as the module lives: classes and functions are told by their identity.
    """
    try:
        return tuple((name, _module(child)) for name, child in module.named_modules(remove_duplicate=False))
    # looking at attributes runs properties and descriptors of the user's
    except Exception:
        return None


def _module(module: nn.Module) -> Any:
    cls = type(module)
    if cls.__module__.partition(".")[0] == "torchmetrics":
        return id(cls)  # counts what it sees in every step, and takes no part in forward
    values = {k: v for k, v in vars(module).items() if k not in _WEIGHTS and k not in _LIGHTNING}
    values.pop("forward", None)  # a stand-in of ours, or the user's own, which is described by its class
    weights = [(k, _kind(p)) for k, p in module._parameters.items()]
    transient = module._non_persistent_buffers_set
    buffers = [(k, _value(b, 0) if k in transient else _kind(b)) for k, b in module._buffers.items()]
    return id(cls), tuple(weights), tuple(buffers), _value(values, 0)


def _kind(tensor: torch.Tensor | None) -> Any:
    if tensor is None:
        return None
    return type(tensor), tuple(tensor.shape), tensor.dtype


def _value(value: Any, depth: int) -> Any:
    if type(value) in _PLAIN_CONTAINERS and not value:
        return type(value)  # a module has a dozen of hooks' dicts, most of them empty
    if depth > _DEEPEST:
        raise _CannotTellError
    if isinstance(value, (*_PLAIN, enum.Enum)):
        return type(value), value
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, _BY_IDENTITY):
        return id(value)
    if isinstance(value, types.MethodType):
        return id(value.__func__), id(value.__self__)
    if isinstance(value, functools.partial):
        return _value([value.func, value.args, value.keywords], depth + 1)
    if isinstance(value, nn.Module):
        return description(value) or _refuse()
    return _container(value, depth)


def _container(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        items = tuple((_value(k, depth + 1), _value(v, depth + 1)) for k, v in value.items())
        return type(value), items, _attributes(value, depth)
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_value(item, depth + 1) for item in value), _attributes(value, depth)
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(_value(item, depth + 1) for item in value)
    if not hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
        raise _CannotTellError
    return type(value), _attributes(value, depth)


def _attributes(value: Any, depth: int) -> Any:
    own = getattr(value, "__dict__", None)
    if not own:
        return None
    return tuple((key, _value(item, depth + 1)) for key, item in own.items())


def _tensor(tensor: torch.Tensor) -> Any:
    if tensor.numel() > _LARGEST or type(tensor) not in (torch.Tensor, nn.Parameter):
        raise _CannotTellError
    return _kind(tensor), hashlib.sha256(tensor_bytes(tensor)).digest()


def _refuse() -> Any:
    raise _CannotTellError
