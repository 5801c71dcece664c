"""LSTM, GRU and RNN as TensorRT loops: one engine for every length and batch.

Upstream has no converter for them, and PyTorch's own decomposition copies the cell for every step, which fixes the
length. ``_compat/recurrent.py`` keeps the operators whole, and the converters here make of each layer one loop, in
which both directions run side by side. A single step needs no loop.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lightning_trt_windows._compat.recurrent import RECURRENT_OPERATORS
from lightning_trt_windows._compat.torch_tensorrt import Upstream
from lightning_trt_windows.backends.layers import Layers
from lightning_trt_windows.backends.recurrent_cells import CELLS, Weights
from lightning_trt_windows.settings import Recurrent

__all__ = ["faster_in_torch", "keep_whole", "register_converters"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_ONE_STEP = 1
_FEW_UNITS = 8
"""Units below which one row is computed twice. Of states of three to six numbers TensorRT-RTX (1.6.1) makes engines of
26 MB to 540 MB, in up to three minutes; of two such rows, or of seven numbers, 2 MB in two seconds."""
_LONG = 32
"""Steps from which cuDNN is faster, as measured on an H100 (docs/recurrent.md)."""
_WIDE_GRU = 256
"""Units from which a GRU in an engine is as fast as cuDNN's at every length that was measured."""


def keep_whole(table: dict[Any, Any]) -> dict[Any, Any]:
    """A table of decompositions without those of recurrent operators."""
    return {operator: function for operator, function in table.items() if operator not in RECURRENT_OPERATORS}


@functools.cache
def register_converters(blocks: Upstream) -> None:
    """Make the converters known to upstream's registry."""
    for operator in RECURRENT_OPERATORS:
        name = operator._schema.name.partition("::")[2]
        blocks.converter(operator, capability_validator=_converts, supports_dynamic_shapes=True)(
            functools.partial(_convert, blocks, name)
        )


def faster_in_torch(module: GraphModule, recurrent: Recurrent) -> dict[str, str]:
    """The recurrent nets of a lowered graph that are to fall back to PyTorch, which has cuDNN.

    Args:
        module: The graph.
        recurrent: ``"auto"`` takes those whose usual length is long; ``"pytorch"`` all, ``"engine"`` none.

    Returns:
        Name of the node to the reason.
    """
    found: dict[str, str] = {}
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target not in RECURRENT_OPERATORS or recurrent == "engine":
            continue
        steps = _usual_length(node)
        if recurrent == "pytorch":
            found[node.name] = "recurrent='pytorch'"
        elif steps > _LONG and not (node.target is torch.ops.aten.gru.input and _units(node) >= _WIDE_GRU):
            found[node.name] = (
                f"cuDNN takes {steps} steps faster than a loop in an engine does; recurrent='engine' makes the loop"
            )
    return found


def _usual_length(node: Node) -> int:
    x, batch_first = node.args[0], node.args[8]
    size = x.meta["val"].shape[-2 if batch_first else 0]  # type: ignore[union-attr]  # a tensor's node
    return size if isinstance(size, int) else int(size.node.hint)


def _units(node: Node) -> int:
    params: Any = node.args[2]
    return int(params[1].meta["val"].shape[1])


def _converts(node: Node, settings: Any) -> bool:
    """Whether an engine can take ``node``: of a type that TensorRT has, and without dropout in force."""
    x = node.args[0]
    value = x.meta.get("val") if isinstance(x, Node) else None
    dropout, train = node.args[5:7]
    return isinstance(value, torch.Tensor) and value.dtype in _FLOATS and not (train and dropout)


def _convert(blocks: Upstream, kind: str, context: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
    """The converter, with the arguments of ``aten::lstm.input`` and its siblings."""
    x, hx, params, has_biases, num_layers, _, _, bidirectional, batch_first = args
    layers = Layers(blocks, context, name)
    x = layers.tensor(x)
    states = [layers.tensor(state) for state in (hx if isinstance(hx, (list, tuple)) else [hx])]
    time, batch = (1, 0) if batch_first else (0, 1)
    twice = x.shape[batch] == 1 and x.shape[time] != _ONE_STEP and states[-1].shape[2] < _FEW_UNITS
    if twice:
        x = layers.concatenate([x, x], batch)
        states = [layers.concatenate([state, state], 1) for state in states]
    rows = layers.size(x, batch)
    directions = 2 if bidirectional else 1
    weights = _weights(layers, params, num_layers * directions, has_biases)
    last: list[tuple[Any, ...]] = []
    for first in range(0, num_layers * directions, directions):
        chosen = range(first, first + directions)
        initial = [tuple(layers.cast(layers.row(s, k), layers.trt.float32) for s in states) for k in chosen]
        x, final = _layer(layers, kind, x, initial, [weights[k] for k in chosen], time, rows)
        last += final
    dtype = x.dtype
    found = [x, *(_stacked(layers, [state[k] for state in last], dtype) for k in range(len(states)))]
    if twice:
        found = [layers.first(value, axis) for value, axis in zip(found, (batch, *(1 for _ in states)))]
    return tuple(found)


def _weights(layers: Layers, params: Sequence[Any], count: int, has_biases: bool) -> list[Weights]:
    """The weights of ``count`` layers and directions, from the operator's flat list."""
    each = len(params) // count
    of_biases = 2 if has_biases else 0
    found = []
    for first in range(0, len(params), each):
        own = [layers.tensor(value) for value in params[first : first + each]]
        bias_ih, bias_hh = own[2:4] if has_biases else (None, None)
        weight_hr = own[2 + of_biases] if each > 2 + of_biases else None
        found.append(Weights(own[0], own[1], bias_ih, bias_hh, weight_hr))
    return found


def _layer(
    layers: Layers,
    kind: str,
    x: Any,
    initial: list[tuple[Any, ...]],
    weights: list[Weights],
    time: int,
    rows: Any,
) -> tuple[Any, list[tuple[Any, ...]]]:
    """One layer in its directions: the output, and the last states of each direction, in float32.

    The steps need nothing of each other but the states, so the input's part of all gates is one matrix product.
    """
    gates = [_input_gates(layers, x, own) for own in weights]
    if x.shape[time] == _ONE_STEP:
        return _single_step(layers, kind, x, gates, initial, weights, time, rows)
    steps = layers.cast(layers.reshape(layers.size(x, time), ()), layers.trt.int64)
    loop = layers.network.add_loop()
    loop.name = layers.unique("loop")
    limit = loop.add_trip_limit(steps, layers.trt.TripLimit.COUNT)
    limit.name = layers.unique("steps")
    outputs, last = [], []
    for backward, (gate, start, own) in enumerate(zip(gates, initial, weights, strict=True)):
        step = layers.named(loop.add_iterator(gate, time, bool(backward)), "step")
        recurrences = [loop.add_recurrence(state) for state in start]
        states = tuple(layers.named(recurrence, "state") for recurrence in recurrences)
        new = CELLS[kind](layers, own, layers.cast(step, layers.trt.float32), states, rows)
        for recurrence, state in zip(recurrences, new, strict=True):
            recurrence.set_input(1, state)
        order = layers.trt.LoopOutput.REVERSE if backward else layers.trt.LoopOutput.CONCATENATE
        output = loop.add_loop_output(layers.cast(new[0], x.dtype), order, time)
        output.set_input(1, steps)
        outputs.append(layers.named(output, "output"))
        value = layers.trt.LoopOutput.LAST_VALUE
        last.append(tuple(layers.named(loop.add_loop_output(state, value), "last") for state in states))
    return layers.concatenate(outputs, 2), last


def _input_gates(layers: Layers, x: Any, weights: Weights) -> Any:
    product = layers.linear(x, weights.weight_ih)
    return product if weights.bias_ih is None else layers.add(product, layers.reshape(weights.bias_ih, (1, 1, -1)))


def _single_step(
    layers: Layers,
    kind: str,
    x: Any,
    gates: list[Any],
    initial: list[tuple[Any, ...]],
    weights: list[Weights],
    time: int,
    rows: Any,
) -> tuple[Any, list[tuple[Any, ...]]]:
    """What ``_layer`` gives for one step, as decoders take them."""
    last = []
    for gate, start, own in zip(gates, initial, weights, strict=True):
        step = layers.cast(layers.reshape(gate, (-1, int(gate.shape[2]))), layers.trt.float32)
        last.append(CELLS[kind](layers, own, step, start, rows))
    outputs = [layers.cast(states[0], x.dtype) for states in last]
    shape = [-1, -1, int(outputs[0].shape[1])]
    shape[time] = 1
    return layers.concatenate([layers.reshape(output, shape) for output in outputs], 2), last


def _stacked(layers: Layers, states: list[Any], dtype: Any) -> Any:
    """Matrices on top of each other along a new first axis, in ``dtype``."""
    rows = [layers.reshape(layers.cast(state, dtype), (1, -1, int(state.shape[1]))) for state in states]
    return layers.concatenate(rows, 0)
