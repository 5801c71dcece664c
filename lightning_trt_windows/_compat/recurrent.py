"""PyTorch's recurrent operators, kept whole while a module is traced: with the shapes of their results, and no loop.

``recurrent_nets_kept_whole()`` is entered around ``torch.export.export`` and ``ExportedProgram.run_decompositions``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from lightning_trt_windows._compat.versions import Workaround

__all__ = ["RECURRENT_NETS_ARE_UNROLLED", "RECURRENT_OPERATORS", "recurrent_nets_kept_whole"]

RECURRENT_NETS_ARE_UNROLLED = Workaround(
    upstream="torch",
    since="2.11",
    until=None,
    reason="Tracing takes LSTM, GRU and RNN apart into one copy of the cell for each step, which fixes the length and "
    "takes minutes; up to 2.12 it also gives the states of an LSTM a dimension of 1 that they do not have "
    "(pytorch#151200). The operators are kept whole, with shapes computed here.",
    link="https://github.com/pytorch/pytorch/issues/115092",
    test="test_recurrent.py::test_recurrent_nets_are_still_unrolled",
    delete="torch.export keeps the operators whole with a length that may vary, and so does run_decompositions.",
)

_aten = torch.ops.aten
RECURRENT_OPERATORS = (_aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input)
"""The operators of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` over padded sequences."""

_KEYS = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd)


@contextlib.contextmanager
def recurrent_nets_kept_whole() -> Iterator[None]:
    """Give the recurrent operators kernels that only compute shapes, for fake tensors; others get the real ones.

    PyTorch has Python kernels for them that are taken whenever something is traced. Outside of traces the operators
    are those of C++, here as elsewhere. Packing a sequence in a trace is a ``TypeError`` that says what to do instead.
    Not for several threads at a time, as ``torch.export`` itself.
    """
    from torch._decomp import decomposition_table

    before = {operator: dict(operator.py_kernels) for operator in RECURRENT_OPERATORS}
    # what fake tensors with symbolic sizes are given to, before anything else is asked
    table: dict[Any, Any] = {o: decomposition_table[o] for o in before if o in decomposition_table}
    for operator in before:
        _install(operator, {key: _kernel(operator, operator.py_kernels.get(key)) for key in _KEYS})
        decomposition_table[operator] = functools.partial(_results, operator)
    try:
        with mock.patch.object(torch._VF, "_pack_padded_sequence", _packed(torch._VF._pack_padded_sequence)):
            yield
    finally:
        for operator, kernels in before.items():
            operator.py_kernels.clear()
            _install(operator, kernels)
            del decomposition_table[operator]
        decomposition_table.update(table)


def _packed(real: Callable[..., Any]) -> Callable[..., Any]:
    from torch._subclasses.fake_tensor import is_fake

    def pack(x: Tensor, *args: Any) -> Any:
        if is_fake(x):
            raise TypeError(
                "a packed sequence has sizes that depend on the lengths, and no trace knows those. Leave packing out "
                "of the artifact (if not torch.compiler.is_exporting(): x = pack_padded_sequence(x, ...)), and give it "
                "sequences of one length at a time: its engine takes every length and batch, so none needs padding"
            )
        return real(x, *args)

    return pack


def _install(operator: Any, kernels: dict[Any, Any]) -> None:
    operator.py_kernels.update(kernels)
    # which kernel a key resolves to is remembered
    operator._dispatch_cache.clear()


def _kernel(operator: Any, real: Callable[..., Any] | None) -> Callable[..., Any]:
    from torch._subclasses.fake_tensor import is_fake

    def kernel(*args: Any, **kwargs: Any) -> Any:
        if is_fake(args[0]):
            return _results(operator, *args, **kwargs)
        if real is not None:
            return real(*args, **kwargs)
        # not operator.decompose(), which would find this kernel again: the one that was written in C++
        return operator._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)

    return kernel


def _results(
    operator: Any,
    x: Tensor,
    hx: Tensor | Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Tensors of the shapes, types and strides of what the operator returns.

    Raises:
        RuntimeError: Something decomposes the operator, so that its steps would become part of a graph.
    """
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    if get_proxy_mode() is not None:
        raise RuntimeError(f"{operator} is kept whole: leave it out of the table of decompositions")
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    directions = 2 if bidirectional else 1
    first, second = (x.shape[1], x.shape[0]) if batch_first else (x.shape[0], x.shape[1])
    # all kernels compute with the time first, and return a view of that
    y = x.new_empty((first, second, directions * states[0].shape[2]))
    y = y.transpose(0, 1) if batch_first else y
    return y, *(x.new_empty((directions * num_layers, second, state.shape[2])) for state in states)
