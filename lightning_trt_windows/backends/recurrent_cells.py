"""One step of each recurrent net, in TensorRT layers; the formulas are those of ``torch.nn.LSTM``, ``GRU`` and ``RNN``.

A cell is given what the input contributes to its gates, ``x @ W_ih.T + b_ih``, which has been computed for all steps
at once. Matrix products are of the type of the weights; gates and states are float32, whatever that is: a sum that
runs over a thousand steps keeps little of float16, and nothing of bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from lightning_trt_windows.backends.layers import Layers

__all__ = ["CELLS", "Cell", "Weights"]


@dataclass(frozen=True)
class Weights:
    """Weights of one layer in one direction: tensors of the network, named as the attributes of ``torch.nn.LSTM``."""

    weight_ih: Any
    """Shape (gates * hidden, input)."""
    weight_hh: Any
    """Shape (gates * hidden, hidden, or the projection's size)."""
    bias_ih: Any | None
    bias_hh: Any | None
    weight_hr: Any | None
    """Shape (projection, hidden); of an LSTM with ``proj_size``."""


Cell: TypeAlias = Callable[[Layers, Weights, Any, "tuple[Any, ...]", Any], "tuple[Any, ...]"]
"""Takes the layers, the weights, the input's part of the gates of one step (batch, gates * hidden), the states, each
(batch, hidden), and the size of the batch; gives the states after the step, of which the first is the output."""


def _recurrent(layers: Layers, weights: Weights, hidden: Any) -> Any:
    """``hidden @ W_hh.T + b_hh`` in float32."""
    trt = layers.trt
    product = layers.linear(layers.cast(hidden, weights.weight_hh.dtype), weights.weight_hh)
    product = layers.cast(product, trt.float32)
    if weights.bias_hh is None:
        return product
    return layers.add(product, layers.cast(layers.reshape(weights.bias_hh, (1, -1)), trt.float32))


def _lstm(layers: Layers, weights: Weights, x: Any, states: tuple[Any, ...], rows: Any) -> tuple[Any, ...]:
    """``i, f, g, o``; ``c' = f * c + i * g``; ``h' = o * tanh(c')``, projected where there is a projection."""
    hidden, cell = states
    gates = layers.add(x, _recurrent(layers, weights, hidden))
    width = int(cell.shape[1])
    i, f, g, o = (layers.columns(gates, part, width, rows) for part in range(4))
    kept = layers.multiply(layers.sigmoid(f), cell)
    new_cell = layers.add(kept, layers.multiply(layers.sigmoid(i), layers.tanh(g)))
    new_hidden = layers.multiply(layers.sigmoid(o), layers.tanh(new_cell))
    if weights.weight_hr is not None:
        projected = layers.linear(layers.cast(new_hidden, weights.weight_hr.dtype), weights.weight_hr)
        new_hidden = layers.cast(projected, layers.trt.float32)
    return new_hidden, new_cell


def _gru(layers: Layers, weights: Weights, x: Any, states: tuple[Any, ...], rows: Any) -> tuple[Any, ...]:
    """``r, z, n = tanh(x_n + r * h_n)``; ``h' = (h - n) * z + n``."""
    (hidden,) = states
    recurrent = _recurrent(layers, weights, hidden)
    width = int(hidden.shape[1])
    x_r, x_z, x_n = (layers.columns(x, part, width, rows) for part in range(3))
    h_r, h_z, h_n = (layers.columns(recurrent, part, width, rows) for part in range(3))
    reset, update = layers.sigmoid(layers.add(x_r, h_r)), layers.sigmoid(layers.add(x_z, h_z))
    new = layers.tanh(layers.add(x_n, layers.multiply(reset, h_n)))
    return (layers.add(layers.multiply(layers.subtract(hidden, new), update), new),)


def _rnn_tanh(layers: Layers, weights: Weights, x: Any, states: tuple[Any, ...], rows: Any) -> tuple[Any, ...]:
    """``h' = tanh(x + W_hh h)``."""
    return (layers.tanh(layers.add(x, _recurrent(layers, weights, states[0]))),)


def _rnn_relu(layers: Layers, weights: Weights, x: Any, states: tuple[Any, ...], rows: Any) -> tuple[Any, ...]:
    """``h' = relu(x + W_hh h)``."""
    return (layers.relu(layers.add(x, _recurrent(layers, weights, states[0]))),)


CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}
"""Cell by the name of the operator."""
