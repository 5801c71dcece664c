"""One iteration of a loop as a graph of PyTorch's operators, so that the others need not look at its layers again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Repeated"]

_Values = Mapping[str, Tensor]
_Replay = Callable[..., Sequence[Tensor]]
_DEPENDS_ON_VALUES = (
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.nondeterministic_seeded,
)


class Repeated:
    """A function of named tensors that is called again and again.

    The first call is recorded as a graph of PyTorch's operators, and from the second on the graph is called instead, as
    long as shapes and types stay what they are: it takes a few microseconds an operator. The second call is made both
    ways. Where they differ, or where what is called depends on values, every call is one of the function.

    Args:
        function: Computes tensors of tensors. What else it uses must be the same in every call.
    """

    def __init__(self, function: Callable[[_Values], dict[str, Tensor]]) -> None:
        self._function = function
        self._kinds: Any = None
        self._names: tuple[str, ...] = ()
        self._replay: _Replay | None = None
        self._calls = 0

    def __call__(self, values: _Values) -> dict[str, Tensor]:
        """Call it."""
        self._calls += 1
        kinds = {name: (value.shape, value.dtype) for name, value in values.items()}
        if self._calls == 1:
            self._kinds = kinds
            return self._recorded(values)
        if self._replay is None or kinds != self._kinds:
            return self._function(values)
        found = dict(zip(self._names, self._replay(*values.values()), strict=True))
        if self._calls == 2:
            wanted = self._function(values)
            if not all(_same(found[name], value) for name, value in wanted.items()):
                self._replay = None
                return wanted
        return found

    def _recorded(self, values: _Values) -> dict[str, Tensor]:
        # aliases: the same tensor under two names is two arguments
        own = {name: value.detach() for name, value in values.items()}
        recorder = _Recorder(list(own.values()))
        with recorder:
            results = self._function(own)
        self._names = tuple(results)
        self._replay = recorder.replay(list(results.values()))
        return results


def _same(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    return torch.allclose(found, wanted, equal_nan=True) if wanted.is_floating_point() else torch.equal(found, wanted)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._nodes = {id(value): self._graph.placeholder(f"x{n}") for n, value in enumerate(inputs)}
        # an id belongs to another tensor when the first one has gone
        self._alive: list[Tensor] = list(inputs)
        self._constants = torch.nn.Module()
        self._repeats = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not any(id(value) in self._nodes for value in tree_leaves((args, kwargs))):
            return result
        several = result if isinstance(result, (tuple, list)) else [result]
        if (
            func._schema.is_mutable
            or not all(isinstance(value, Tensor) for value in several)
            or any(tag in func.tags for tag in _DEPENDS_ON_VALUES)
        ):
            self._repeats = False
        if self._repeats:
            self._enter(func, args, kwargs, result)
        return result

    def _enter(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        called = self._graph.call_function(func, *tree_map(self._argument, (args, kwargs)))
        if isinstance(result, Tensor):
            self._keep(result, called)
            return
        for number, value in enumerate(result):
            self._keep(value, self._graph.call_method("__getitem__", (called, number)))

    def _keep(self, value: Tensor, node: fx.Node) -> None:
        self._alive.append(value)
        self._nodes[id(value)] = node

    def _argument(self, value: Any) -> Any:
        return self._node(value) if isinstance(value, Tensor) else value

    def _node(self, value: Tensor) -> fx.Node:
        if id(value) not in self._nodes:
            name = f"constant{len(self._alive)}"
            self._constants.register_buffer(name, value)
            self._keep(value, self._graph.get_attr(name))
        return self._nodes[id(value)]

    def replay(self, results: Sequence[Tensor]) -> _Replay | None:
        if not self._repeats:
            return None
        self._graph.output([self._node(value) for value in results])
        self._graph.eliminate_dead_code()
        return fx.GraphModule(self._constants, self._graph).forward
