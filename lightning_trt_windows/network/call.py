"""One layer while it is evaluated: its inputs, its attributes, and what is noted of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_trt_windows.network.errors import NetworkError, UnknownLayerError

__all__ = ["LAYERS", "Call", "Function", "axes_of", "layer", "torch_dtypes"]

Function = Callable[["Call"], "list[Tensor]"]
"""Computes the outputs of a layer."""

LAYERS: dict[str, Function] = {}
"""Kind of layer to the function that evaluates it."""


def layer(kind: str) -> Callable[[Function], Function]:
    """Register a function for layers of ``kind``."""

    def register(function: Function) -> Function:
        LAYERS[kind] = function
        return function

    return register


def torch_dtypes(trt: Any) -> dict[Any, torch.dtype]:
    """TensorRT's types to PyTorch's, as far as both have them."""
    names = {
        "FLOAT": torch.float32,
        "HALF": torch.float16,
        "BF16": torch.bfloat16,
        "INT32": torch.int32,
        "INT64": torch.int64,
        "INT8": torch.int8,
        "UINT8": torch.uint8,
        "BOOL": torch.bool,
        "FP8": torch.float8_e4m3fn,
    }
    return {getattr(trt.DataType, name): dtype for name, dtype in names.items() if hasattr(trt.DataType, name)}


def axes_of(mask: int, rank: int) -> list[int]:
    """The axes that a bit mask of TensorRT's names."""
    return [axis for axis in range(rank) if mask >> axis & 1]


class Call:
    """A layer and the values of its inputs.

    Args:
        trt: TensorRT's bindings.
        layer: The layer, as an object of its own class.
        kind: Its kind, as ``"CONVOLUTION"``.
        value: Gives the value of a tensor by its name.
        weights: Constants that the bindings cannot return, by upstream's name for them.
        warn: Takes sentences about what the documentation leaves open, or calls out of contract.
    """

    def __init__(
        self,
        trt: Any,
        layer: Any,
        kind: str,
        value: Callable[[str], Tensor],
        weights: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self.trt = trt
        self.layer = layer
        self.kind = kind
        self.name: str = layer.name
        self._value = value
        self._weights = weights
        self._warn = warn
        self._dtypes = torch_dtypes(trt)

    def has(self, index: int) -> bool:
        """Whether the layer has an input number ``index``."""
        return index < self.layer.num_inputs and self.layer.get_input(index) is not None

    def tensor(self, index: int = 0) -> Tensor:
        """Value of an input."""
        return self._value(self.layer.get_input(index).name)

    def named(self, name: str) -> Tensor:
        """Value of a tensor that is not among the inputs, such as the mask of an attention."""
        return self._value(name)

    def integers(self, index: int) -> list[int]:
        """An input that is a shape, as Python's numbers."""
        # one by one, which a recorded iteration notices, as it does not with tolist()
        return [int(number) for number in self.tensor(index).reshape(-1)]

    def integers_or(self, index: int, attribute: str) -> list[int]:
        """A shape that may come as an input or stand in the layer."""
        return self.integers(index) if self.has(index) else [int(n) for n in getattr(self.layer, attribute)]

    def dtype(self, output: int = 0) -> torch.dtype:
        """Type of an output, as the network has it."""
        return self.torch_dtype(self.layer.get_output(output).dtype)

    def torch_dtype(self, dtype: Any) -> torch.dtype:
        """PyTorch's name for a type of TensorRT's.

        Returns:
            The type.

        Raises:
            UnknownLayerError: PyTorch has no such type.
        """
        if dtype not in self._dtypes:
            raise self.unknown(f"type {dtype}")
        return self._dtypes[dtype]

    def rank(self, output: int = 0) -> int | None:
        """Number of axes of an output, as the network has it; ``None`` where it does not know."""
        try:
            return len(tuple(self.layer.get_output(output).shape))
        except ValueError:
            return None

    def weight(self, array: Any, role: str) -> Tensor | None:
        """Weights that stand in the layer.

        Args:
            array: What the bindings give: a NumPy array, or an opaque object for types that NumPy lacks.
            role: Upstream's word for these weights: ``CONSTANT``, ``KERNEL``, ``BIAS``.

        Returns:
            A tensor that shares TensorRT's memory where it can; ``None`` where there are no weights.

        Raises:
            UnknownLayerError: The bindings cannot return them and nobody else kept them.
        """
        if array is None or getattr(array, "size", 0) == 0:
            return None
        if hasattr(array, "flags"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the memory is TensorRT's, and nobody here writes to it
                return torch.from_numpy(array)
        for key in (f"{self.name} {role}", self.name):
            if key in self._weights:
                return torch.as_tensor(self._weights[key]).detach().cpu()
        raise self.unknown(f"{role.lower()} weights that the bindings do not return")

    def warn(self, text: str) -> None:
        """Note a sentence about this layer."""
        self._warn(f"{self.name}: {text}")

    def unknown(self, what: object) -> UnknownLayerError:
        """An error that names a mode without a meaning here."""
        return UnknownLayerError(self.kind, self.name, str(what))

    def impossible(self, text: str) -> NetworkError:
        """An error about what the engine could not do either."""
        return NetworkError(f"{self.name} ({self.kind}): {text}")
