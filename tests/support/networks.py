"""TensorRT networks made by hand, and read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lightning_trt_windows.network import Evaluation, Network, read_network

__all__ = ["constant", "evaluated", "made", "trt"]

trt = pytest.importorskip("tensorrt_rtx", reason="networks are made with TensorRT-RTX's bindings")


class _Keep:
    """What a network needs to live."""

    held: list[Any] = []  # noqa: RUF012 -- on purpose one for all: TensorRT's objects must outlive their networks


def made(build: Callable[[Any, list[Any]], Any], *inputs: torch.Tensor, dynamic: bool = True) -> Network:
    """A network with inputs ``x0``, ``x1`` ... of these types, whose outputs are what ``build`` returns."""
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    types = {
        torch.float32: trt.float32,
        torch.float16: trt.float16,
        torch.bfloat16: trt.bfloat16,
        torch.int32: trt.int32,
        torch.int64: trt.int64,
        torch.bool: trt.bool,
    }
    given = []
    for number, value in enumerate(inputs):
        shape = [-1, *value.shape[1:]] if dynamic and value.dim() else list(value.shape)
        given.append(network.add_input(f"x{number}", types[value.dtype], tuple(shape)))
    results = build(network, given)
    for tensor in results if isinstance(results, (list, tuple)) else [results]:
        network.mark_output(tensor)
    _Keep.held.append((builder, network))
    return read_network(trt, network)


def evaluated(
    build: Callable[[Any, list[Any]], Any], *inputs: torch.Tensor, dynamic: bool = True
) -> list[torch.Tensor]:
    """Outputs of the network on these inputs."""
    network = made(build, *inputs, dynamic=dynamic)
    found: Evaluation = network.evaluate({f"x{number}": value for number, value in enumerate(inputs)})
    return [found.values[name] for name in network.outputs]


def constant(network: Any, value: Any) -> Any:
    """A constant tensor of the network."""
    array = np.array(value)
    _Keep.held.append(array)
    return network.add_constant(array.shape, array).get_output(0)
