"""Element by element: each operation of TensorRT against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.networks import evaluated, trt
from torch import Tensor
from torch.nn import functional as F

X = torch.linspace(-3, 3, 24).reshape(4, 6)
POSITIVE = X.abs() + 0.1


@pytest.mark.parametrize(
    ("name", "expected", "x"),
    [
        ("ABS", torch.abs, X),
        ("EXP", torch.exp, X),
        ("LOG", torch.log, POSITIVE),
        ("SQRT", torch.sqrt, POSITIVE),
        ("RECIP", torch.reciprocal, POSITIVE),
        ("SIGN", torch.sign, X),
        ("ROUND", torch.round, torch.tensor([[0.5, 1.5, 2.5, -0.5]])),
        ("FLOOR", torch.floor, X),
        ("CEIL", torch.ceil, X),
        ("ERF", torch.erf, X),
        ("SIN", torch.sin, X),
        ("ATAN", torch.atan, X),
        ("NEG", torch.neg, X),
    ],
)
def test_unary(name: str, expected: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Round is half to even."""
    operation = getattr(trt.UnaryOperation, name)
    (found,) = evaluated(lambda net, given: net.add_unary(given[0], operation).get_output(0), x)
    torch.testing.assert_close(found, expected(x))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SUM", torch.add),
        ("SUB", torch.sub),
        ("PROD", torch.mul),
        ("DIV", torch.div),
        ("FLOOR_DIV", lambda a, b: torch.div(a, b, rounding_mode="floor")),
        ("MAX", torch.maximum),
        ("MIN", torch.minimum),
        ("GREATER", torch.gt),
        ("LESS", torch.lt),
        ("EQUAL", torch.eq),
    ],
)
def test_elementwise(name: str, expected: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Axes of size one are broadcast."""
    operation, other = getattr(trt.ElementWiseOperation, name), torch.tensor([[1.0, -2.0, 0.5, 3.0, -1.0, 2.0]])
    (found,) = evaluated(lambda net, given: net.add_elementwise(*given, operation).get_output(0), X, other)
    torch.testing.assert_close(found, expected(X, other))


def test_division_of_integers_truncates() -> None:
    """DIV rounds towards zero, FLOOR_DIV down: the fault of ``arange / T`` is the first of them."""
    one, other = torch.tensor([[-7, 7, 5]]), torch.tensor([[2, 2, -3]])
    for name, wanted in (("DIV", [[-3, 3, -1]]), ("FLOOR_DIV", [[-4, 3, -2]])):
        operation = getattr(trt.ElementWiseOperation, name)
        (found,) = evaluated(lambda net, given, op=operation: net.add_elementwise(*given, op).get_output(0), one, other)
        assert found.tolist() == wanted


@pytest.mark.parametrize(
    ("name", "alpha", "beta", "expected"),
    [
        ("RELU", 0.0, 0.0, F.relu),
        ("SIGMOID", 0.0, 0.0, torch.sigmoid),
        ("LEAKY_RELU", 0.2, 0.0, lambda x: F.leaky_relu(x, 0.2)),
        ("ELU", 1.5, 0.0, lambda x: F.elu(x, 1.5)),
        ("CLIP", -1.0, 2.0, lambda x: x.clamp(-1, 2)),
        ("HARD_SIGMOID", 0.2, 0.5, lambda x: (0.2 * x + 0.5).clamp(0, 1)),
        ("SOFTPLUS", 1.0, 1.0, F.softplus),
        ("GELU_ERF", 0.0, 0.0, F.gelu),
        ("GELU_TANH", 0.0, 0.0, lambda x: F.gelu(x, approximate="tanh")),
    ],
)
def test_activation(name: str, alpha: float, beta: float, expected: Callable[[Tensor], Tensor]) -> None:
    """With its parameters."""

    def build(net: object, given: list[object]) -> object:
        layer = net.add_activation(given[0], getattr(trt.ActivationType, name))  # type: ignore[attr-defined]
        layer.alpha, layer.beta = alpha, beta
        return layer.get_output(0)

    (found,) = evaluated(build, X)
    torch.testing.assert_close(found, expected(X))


def test_half_types_round_where_the_network_does() -> None:
    """A sum in float16 is rounded to float16."""
    half = X.half()
    operation = trt.ElementWiseOperation.SUM
    (found,) = evaluated(lambda net, given: net.add_elementwise(given[0], given[0], operation).get_output(0), half)
    assert found.dtype == torch.float16
    assert torch.equal(found, half + half)
