"""New nodes in a graph have the values and the lines that the later stages read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_trt_windows.backends.rewrites.insertion import Insertion, constant_of, operators, value_of

aten = torch.ops.aten


class Net(nn.Module):
    """A product with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.arange(5.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights


def lowered() -> torch.fx.GraphModule:
    """A graph of operators whose nodes have values."""
    return torch.export.export(Net(), (torch.ones(4, 5),), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()


def test_nodes_know_what_they_give() -> None:
    """Shape, type and line of the model are those of an operator that was traced."""
    module = lowered()
    (product,) = (node for node in operators(module) if node.target is aten.mul.Tensor)
    insert = Insertion(module, product)
    total = insert(aten.sum.dim_IntList, product.args[0], [1], True)
    whole = insert.cast(total, torch.int64)
    assert value_of(total).shape[0] is not None and str(value_of(total).shape[0]) == str(value_of(product).shape[0])
    assert (value_of(whole).dtype, whole.meta["tensor_meta"].dtype) == (torch.int64, torch.int64)
    assert total.meta["stack_trace"] == product.meta["stack_trace"]
    assert insert.cast(whole, torch.int64) is whole
    product.replace_all_uses_with(whole, propagate_meta=False)


def test_constants() -> None:
    """A buffer is one; what is computed is none."""
    module = lowered()
    found = [constant_of(module, node) for node in module.graph.nodes]
    assert sum(one is not None for one in found) == 1
    assert torch.equal(next(one for one in found if one is not None), torch.arange(5.0))
