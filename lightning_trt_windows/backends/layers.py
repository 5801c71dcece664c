"""TensorRT layers in few words, for converters of ours: each method adds one layer and returns its output.

``blocks.trt`` is the module of TensorRT or TensorRT-RTX, and every tensor here is an ``ITensor`` of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lightning_trt_windows._compat.torch_tensorrt import Upstream

__all__ = ["Layers"]


class Layers:
    """Adds layers to the network that a converter works on, named after the node that is converted."""

    def __init__(self, blocks: Upstream, context: Any, name: str) -> None:
        self.trt = blocks.trt
        self.network = context.net
        self._constant = blocks.get_trt_tensor
        self._context = context
        self._name = name
        self._count = 0

    def unique(self, suffix: str) -> str:
        """A name for a layer: that of the node, ``suffix`` and a number."""
        self._count += 1
        return f"{self._name}/{suffix}_{self._count}"

    def named(self, layer: Any, suffix: str) -> Any:
        """The only output of ``layer``, which is given a name."""
        layer.name = self.unique(suffix)
        return layer.get_output(0)

    def tensor(self, value: Any) -> Any:
        """A constant for a torch tensor; a tensor of the network is given back."""
        if not isinstance(value, torch.Tensor):
            return value
        # upstream keeps what it is given alive until the engine is built, and not a copy that it makes
        value = value.detach().contiguous()
        return self._constant(self._context, value, self.unique("constant"))

    def integers(self, *values: int) -> Any:
        """A constant of one axis, of int64."""
        return self.tensor(torch.tensor(values, dtype=torch.int64))

    def cast(self, x: Any, dtype: Any) -> Any:
        """``x`` in a type of TensorRT's; ``x`` itself where it has it."""
        return x if x.dtype == dtype else self.named(self.network.add_cast(x, dtype), "cast")

    def add(self, a: Any, b: Any) -> Any:
        """The sum."""
        return self.named(self.network.add_elementwise(a, b, self.trt.ElementWiseOperation.SUM), "add")

    def subtract(self, a: Any, b: Any) -> Any:
        """The difference."""
        return self.named(self.network.add_elementwise(a, b, self.trt.ElementWiseOperation.SUB), "subtract")

    def multiply(self, a: Any, b: Any) -> Any:
        """The product, element by element."""
        return self.named(self.network.add_elementwise(a, b, self.trt.ElementWiseOperation.PROD), "multiply")

    def sigmoid(self, x: Any) -> Any:
        """The logistic function."""
        return self.named(self.network.add_activation(x, self.trt.ActivationType.SIGMOID), "sigmoid")

    def tanh(self, x: Any) -> Any:
        """The hyperbolic tangent."""
        return self.named(self.network.add_activation(x, self.trt.ActivationType.TANH), "tanh")

    def relu(self, x: Any) -> Any:
        """What is positive, else zero."""
        return self.named(self.network.add_activation(x, self.trt.ActivationType.RELU), "relu")

    def linear(self, x: Any, weight: Any) -> Any:
        """``x @ weight.T``, of the same rank as ``x``, for a weight of two axes."""
        matrix = self.reshape(weight, (*(1,) * (len(x.shape) - 2), *weight.shape)) if len(x.shape) > 2 else weight
        none, transpose = self.trt.MatrixOperation.NONE, self.trt.MatrixOperation.TRANSPOSE
        return self.named(self.network.add_matrix_multiply(x, none, matrix, transpose), "linear")

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        """``x`` in another shape, in which one size may be -1."""
        layer = self.network.add_shuffle(x)
        layer.reshape_dims = tuple(shape)
        return self.named(layer, "reshape")

    def row(self, x: Any, index: int) -> Any:
        """``x[index]``."""
        position = self.tensor(torch.tensor(index, dtype=torch.int64))
        return self.named(self.network.add_gather(x, position, 0), "row")

    def first(self, x: Any, axis: int) -> Any:
        """The first of one axis, which stays."""
        return self.named(self.network.add_gather(x, self.integers(0), axis), "first")

    def concatenate(self, tensors: Sequence[Any], axis: int) -> Any:
        """One tensor of several; a single one as it is."""
        if len(tensors) == 1:
            return tensors[0]
        layer = self.network.add_concatenation(list(tensors))
        layer.axis = axis
        return self.named(layer, "concatenate")

    def size(self, x: Any, axis: int) -> Any:
        """The size of one axis, as a tensor of one axis and one int64."""
        shape = self.named(self.network.add_shape(x), "shape")
        return self.named(self.network.add_gather(shape, self.integers(axis), 0), "size")

    def columns(self, x: Any, part: int, width: int, rows: Any) -> Any:
        """``x[:, part * width : (part + 1) * width]`` of a matrix; ``rows`` is its number of rows, as of ``size``."""
        layer = self.network.add_slice(x, (0, part * width), (1, width), (1, 1))
        layer.set_input(2, self.concatenate([rows, self.integers(width)], 0))
        return self.named(layer, "columns")
