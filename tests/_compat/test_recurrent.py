"""Recurrent operators kept whole: still needed, with the right shapes, and gone when the block is left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram

from lightning_trt_windows._compat import recurrent as compat

KINDS = {
    "lstm": lambda **options: nn.LSTM(4, 8, **options),
    "lstm with projection": lambda **options: nn.LSTM(4, 8, proj_size=3, **options),
    "gru": lambda **options: nn.GRU(4, 8, **options),
    "rnn_tanh": lambda **options: nn.RNN(4, 8, **options),
    "rnn_relu": lambda **options: nn.RNN(4, 8, nonlinearity="relu", **options),
}


def traced(module: nn.Module, x: Tensor) -> ExportedProgram:
    """``module`` with a length and a batch that may vary."""
    sizes = {0: Dim("first", min=1, max=64), 1: Dim("second", min=1, max=64)}
    return torch.export.export(module, (x,), dynamic_shapes=(sizes,), strict=False)


def decompositions() -> dict[Any, Any]:
    """PyTorch's own, without those of the recurrent operators."""
    table = torch.export.default_decompositions()
    return {operator: function for operator, function in table.items() if operator not in compat.RECURRENT_OPERATORS}


def test_recurrent_nets_are_still_unrolled() -> None:
    """No length may vary without the workaround, because PyTorch's own table copies the cell for every step."""
    module, x = nn.LSTM(4, 8).eval(), torch.randn(5, 2, 4)
    with pytest.raises(UserError, match="specialized it to be a constant"):
        traced(module, x)
        pytest.fail("delete recurrent_nets_kept_whole")
    decomposed = torch.export.export(module, (x,), strict=False).run_decompositions()
    assert sum(node.target is torch.ops.aten.sigmoid.default for node in decomposed.graph.nodes) >= x.shape[0]
    with compat.recurrent_nets_kept_whole():
        kept = traced(module, x).run_decompositions(decompositions())
    assert sum(node.target in compat.RECURRENT_OPERATORS for node in kept.graph.nodes) == 1


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_numbers_are_those_of_eager(kind: str, batch_first: bool) -> None:
    """Shapes, types and strides as traced are what the operator gives, for other sizes too."""
    torch.manual_seed(0)
    module = KINDS[kind](num_layers=2, bidirectional=True, batch_first=batch_first).eval()
    with compat.recurrent_nets_kept_whole():
        program = traced(module, torch.randn(5, 3, 4)).run_decompositions(decompositions())
    (node,) = [node for node in program.graph.nodes if node.target in compat.RECURRENT_OPERATORS]
    x = torch.randn(5, 3, 4)
    wanted = torch.utils._pytree.tree_leaves(module(x))
    assert [(len(v.shape), v.dtype) for v in node.meta["val"]] == [(v.dim(), v.dtype) for v in wanted]
    mode = FakeTensorMode()
    fake, *weights = [mode.from_tensor(value) for value in (x, *module._flat_weights)]
    states = [mode.from_tensor(torch.zeros(4, 5 if batch_first else 3, size)) for size in state_sizes(module)]
    with mode, compat.recurrent_nets_kept_whole():
        hx: Any = states if isinstance(module, nn.LSTM) else states[0]
        found = node.target(fake, hx, weights, True, 2, 0.0, False, True, batch_first)
    assert [(tuple(v.shape), v.stride()) for v in found] == [(tuple(v.shape), v.stride()) for v in wanted]
    for sizes in ((1, 1), (7, 2)):
        other = torch.randn(*sizes, 4)
        torch.testing.assert_close(program.module()(other), module(other))


def state_sizes(module: nn.RNNBase) -> tuple[int, ...]:
    """Of the output's state, and of an LSTM's cell."""
    output = module.proj_size or module.hidden_size
    return (output, module.hidden_size) if isinstance(module, nn.LSTM) else (output,)


def test_a_table_that_has_them_makes_no_empty_tensors() -> None:
    """Decomposing with PyTorch's own table inside of the block is an error, and not a graph of empty tensors."""
    module, x = nn.LSTM(4, 8).eval(), torch.randn(5, 2, 4)
    with compat.recurrent_nets_kept_whole():
        program = torch.export.export(module, (x,), strict=False)
        with pytest.raises(RuntimeError, match="is kept whole"):
            program.run_decompositions()


def test_everything_is_as_before_afterwards() -> None:
    """Also when the block ends with an error; eager calls inside of it are the real ones."""
    from torch._decomp import decomposition_table

    operators = compat.RECURRENT_OPERATORS
    before = [(dict(operator.py_kernels), decomposition_table.get(operator)) for operator in operators]
    module, x = nn.GRU(4, 8).eval(), torch.randn(5, 2, 4)
    wanted = module(x)
    with pytest.raises(ZeroDivisionError), compat.recurrent_nets_kept_whole():
        torch.testing.assert_close(module(x), wanted)
        raise ZeroDivisionError
    assert [(dict(operator.py_kernels), decomposition_table.get(operator)) for operator in operators] == before
    torch.testing.assert_close(module(x), wanted)


@pytest.mark.parametrize("operator", compat.RECURRENT_OPERATORS, ids=str)
def test_a_kernel_for_real_tensors_does_not_call_itself(operator: Any) -> None:
    """Where PyTorch has no kernel in Python, that of C++ is called."""
    kind = operator._schema.name.partition("::")[2]
    module = KINDS[kind]().eval()
    x, states = torch.randn(5, 2, 4), [torch.zeros(1, 2, size) for size in state_sizes(KINDS[kind]())]
    given = x, states if kind == "lstm" else states[0], module._flat_weights, True, 1, 0.0, False, False, False
    with torch.no_grad():
        torch.testing.assert_close(compat._kernel(operator, None)(*given), operator(*given))
