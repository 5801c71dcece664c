"""The modules whose weights are laid out for cuDNN; that cuDNN takes them so is seen on a GPU (tests/gpu)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph, Node

from lightning_trt_windows.runtime.recurrent_weights import flattened, module_of

OPERATORS = {
    "lstm": torch.ops.aten.lstm.input,
    "gru": torch.ops.aten.gru.input,
    "tanh": torch.ops.aten.rnn_tanh.input,
    "relu": torch.ops.aten.rnn_relu.input,
}
NETS = [
    (kind, {"num_layers": layers, "bias": bias, "bidirectional": both, "batch_first": first})
    for kind in OPERATORS
    for layers, bias, both, first in ((1, True, False, True), (2, False, True, False), (3, True, True, True))
]
NETS += [("lstm", {"proj_size": 2, "bias": bias, "num_layers": 2, "bidirectional": True}) for bias in (True, False)]


def module(kind: str, **options: Any) -> nn.RNNBase:
    """A net of 4 features and 5 hidden ones."""
    kinds = {"lstm": nn.LSTM, "gru": nn.GRU}
    own = {"nonlinearity": kind} if kind not in kinds else {}
    return kinds.get(kind, nn.RNN)(4, 5, **own, **options).eval()


def graph_of(kind: str, net: nn.RNNBase, names: list[str]) -> tuple[Graph, Node]:
    """A call of the operator, as the program of an artifact has it."""
    graph = Graph()
    x, states = graph.placeholder("x"), graph.placeholder("states")
    params = [graph.get_attr(name) for name in names]
    settings = (net.bias, net.num_layers, 0.0, False, net.bidirectional, net.batch_first)
    call = graph.call_function(OPERATORS[kind], (x, states, params, *settings))
    graph.output(call)
    return graph, call


@pytest.mark.parametrize(("kind", "options"), NETS, ids=str)
@torch.no_grad()
def test_the_module_is_the_one_that_the_call_came_from(kind: str, options: dict[str, Any]) -> None:
    """With its sizes and settings, and the weights' own memory."""
    torch.manual_seed(0)
    net = module(kind, **options)
    weights = list(net.parameters())
    graph, call = graph_of(kind, net, [f"weight_{number}" for number in range(len(weights))])
    made = module_of(call, weights)
    assert repr(made) == repr(net)
    x = torch.randn(3, 6, 4)
    torch.testing.assert_close(made(x), net(x), rtol=1e-5, atol=1e-6)
    assert [p.data_ptr() for p in made.parameters()] == [w.data_ptr() for w in weights]
    named = {f"weight_{number}": weight.detach() for number, weight in enumerate(weights)}
    taken = flattened(graph, named)
    assert taken.keys() == named.keys()
    assert all(torch.equal(taken[name], named[name]) for name in named)


def test_what_shares_weights_or_computes_them_stays_as_it_is() -> None:
    """As ``flatten_parameters`` leaves it."""
    net = module("gru")
    weights = [weight.detach() for weight in net.parameters()]
    shared, _ = graph_of("gru", net, ["a", "b", "c", "c"])
    assert flattened(shared, dict(zip("abcd", weights))) == {}
    graph, call = graph_of("gru", net, list("abcd"))
    with graph.inserting_before(call):
        first = call.args[2][0]  # type: ignore[index]
        call.update_arg(2, [graph.call_function(torch.ops.aten.neg.default, (first,)), *call.args[2][1:]])  # type: ignore[index]
    assert flattened(graph, dict(zip("abcd", weights))) == {}
