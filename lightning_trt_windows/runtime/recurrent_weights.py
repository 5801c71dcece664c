"""Weights of LSTM, GRU and RNN as cuDNN wants them: those of one net in one piece of memory.

Otherwise cuDNN gets a copy of them all in each call, and PyTorch says so each time. ``nn.RNNBase.flatten_parameters``
does for a module what this does for the program of an artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

__all__ = ["flattened", "module_of"]

_aten = torch.ops.aten
_NETS: dict[Any, tuple[Callable[..., nn.RNNBase], dict[str, Any], int]] = {
    _aten.lstm.input: (nn.LSTM, {}, 4),
    _aten.gru.input: (nn.GRU, {}, 3),
    _aten.rnn_tanh.input: (nn.RNN, {"nonlinearity": "tanh"}, 1),
    _aten.rnn_relu.input: (nn.RNN, {"nonlinearity": "relu"}, 1),
}
"""The module of each operator, and its number of gates."""


def flattened(graph: Graph, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Lay the weights of each recurrent net of a graph out for cuDNN.

    Args:
        graph: The graph of a program.
        weights: What its ``get_attr`` nodes name.

    Returns:
        The weights that take the place of those of the same name. Values are equal. Nothing where cuDNN does not run
        the net: on a CPU, without cuDNN, for types that it does not have.
    """
    found: dict[str, Tensor] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _NETS:
            names = list(_names(node))
            if names and len(set(names)) == len(names) and all(name in weights for name in names):
                net = module_of(node, [weights[name] for name in names])
                net.flatten_parameters()
                found.update(zip(names, (parameter.detach() for parameter in net.parameters()), strict=True))
    return found


def module_of(node: Node, weights: Sequence[Tensor]) -> nn.RNNBase:
    """Make the module that a call of a recurrent operator came from.

    Args:
        node: The call.
        weights: Its weights, as the operator takes them. The module's parameters share their memory.

    Returns:
        The module.
    """
    has_biases, num_layers, _, _, bidirectional, batch_first = cast("tuple[Any, ...]", node.args[3:9])
    make, options, gates = _NETS[node.target]
    each = len(weights) // (num_layers * (2 if bidirectional else 1))
    if each > (4 if has_biases else 2):
        options = {**options, "proj_size": weights[each - 1].shape[0]}
    # on the device "meta" nothing is drawn and nothing takes memory
    net = make(
        weights[0].shape[1],
        weights[0].shape[0] // gates,
        num_layers,
        bias=has_biases,
        bidirectional=bidirectional,
        batch_first=batch_first,
        device="meta",
        dtype=weights[0].dtype,
        **options,
    )
    for name, weight in zip(dict(net.named_parameters()), weights, strict=True):
        setattr(net, name, nn.Parameter(weight, requires_grad=False))
    return net


def _names(node: Node) -> Iterator[str]:
    """Of the weights of a recurrent node, as the operator takes them; none where something was computed of one."""
    params: Any = node.args[2]
    if all(isinstance(param, Node) and param.op == "get_attr" for param in params):
        yield from (param.target for param in params)
