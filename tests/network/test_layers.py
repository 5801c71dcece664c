"""Layers with windows, indices, reductions, products and shapes, each against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.networks import constant, evaluated, made, trt
from torch.nn import functional as F

from lightning_trt_windows.network import BudgetExceededError, NetworkError, UnknownLayerError
from lightning_trt_windows.network.call import LAYERS

torch.manual_seed(0)
IMAGE = torch.randn(2, 3, 9, 8)
ROWS = torch.randn(3, 5)


def first(layer: Any) -> Any:
    """The only output of a layer."""
    return layer.get_output(0)


def test_convolution() -> None:
    """Stride, padding, dilation and groups; with a bias."""
    kernel, bias = torch.randn(6, 1, 3, 3), torch.randn(6)

    def build(net: Any, given: list[Any]) -> Any:
        layer = net.add_convolution_nd(given[0], 6, (3, 3), kernel.numpy(), bias.numpy())
        layer.stride_nd, layer.padding_nd, layer.dilation_nd, layer.num_groups = (2, 1), (1, 2), (1, 2), 3
        return first(layer)

    (found,) = evaluated(build, IMAGE)
    torch.testing.assert_close(found, F.conv2d(IMAGE, kernel, bias, (2, 1), (1, 2), (1, 2), 3))


def test_deconvolution() -> None:
    """The transposed convolution, with padding cut off."""
    kernel = torch.randn(3, 4, 3, 3)

    def build(net: Any, given: list[Any]) -> Any:
        layer = net.add_deconvolution_nd(given[0], 4, (3, 3), kernel.numpy())
        layer.stride_nd, layer.padding_nd = (2, 2), (1, 1)
        return first(layer)

    (found,) = evaluated(build, IMAGE)
    torch.testing.assert_close(found, F.conv_transpose2d(IMAGE, kernel, None, 2, 1))


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("kind", ["MAX", "AVERAGE"])
@pytest.mark.parametrize("excludes", [False, True])
def test_pooling(kind: str, up: bool, excludes: bool) -> None:
    """Rounding up and down; a mean that counts padding, and one that does not."""

    def build(net: Any, given: list[Any]) -> Any:
        layer = net.add_pooling_nd(given[0], getattr(trt.PoolingType, kind), (3, 2))
        layer.stride_nd, layer.padding_nd, layer.average_count_excludes_padding = (2, 2), (1, 1), excludes
        layer.padding_mode = trt.PaddingMode.EXPLICIT_ROUND_UP if up else trt.PaddingMode.EXPLICIT_ROUND_DOWN
        return first(layer)

    (found,) = evaluated(build, IMAGE)
    if kind == "MAX":
        expected = F.max_pool2d(IMAGE, (3, 2), 2, 1, ceil_mode=up)
    else:
        expected = F.avg_pool2d(IMAGE, (3, 2), 2, 1, ceil_mode=up, count_include_pad=not excludes)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SUM", lambda x: x.sum((1, 3))),
        ("AVG", lambda x: x.mean((1, 3))),
        ("MAX", lambda x: x.amax((1, 3))),
        ("MIN", lambda x: x.amin((1, 3))),
        ("PROD", lambda x: x.prod(3).prod(1)),
    ],
)
def test_reduce(name: str, expected: Any) -> None:
    """Over the axes of a bit mask."""
    operation = getattr(trt.ReduceOperation, name)
    (found,) = evaluated(lambda net, given: first(net.add_reduce(given[0], operation, 0b1010, False)), IMAGE)
    torch.testing.assert_close(found, expected(IMAGE))


def test_softmax_and_running_sum() -> None:
    """Along one axis."""

    def build(net: Any, given: list[Any]) -> Any:
        softmax = net.add_softmax(given[0])
        softmax.axes = 0b10
        axis = constant(net, np.array(1, np.int32))
        return first(softmax), first(net.add_cumulative(given[0], axis, trt.CumulativeOperation.SUM, False, False))

    soft, summed = evaluated(build, ROWS)
    torch.testing.assert_close(soft, ROWS.softmax(1))
    torch.testing.assert_close(summed, ROWS.cumsum(1))


def test_matrix_products() -> None:
    """Transposed, and with a vector."""
    other = torch.randn(3, 5)
    none, transpose = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    (found,) = evaluated(
        lambda net, given: first(net.add_matrix_multiply(given[0], none, given[1], transpose)), ROWS, other
    )
    torch.testing.assert_close(found, ROWS @ other.T)
    weights = np.arange(5, dtype=np.float32)
    (found,) = evaluated(
        lambda net, given: first(
            net.add_matrix_multiply(given[0], none, constant(net, weights), trt.MatrixOperation.VECTOR)
        ),
        ROWS,
    )
    torch.testing.assert_close(found, ROWS @ torch.from_numpy(weights))


def test_gather() -> None:
    """Slices, elements, and tuples of indices; a negative index is noted."""
    index = np.array([2, 0, 2], np.int64)
    (found,) = evaluated(lambda net, given: first(net.add_gather(given[0], constant(net, index), 1)), ROWS)
    torch.testing.assert_close(found, ROWS[:, index])
    network = made(lambda net, given: first(net.add_gather(given[0], constant(net, np.array([-1])), 1)), ROWS)
    evaluation = network.evaluate({"x0": ROWS})
    torch.testing.assert_close(evaluation.values[network.outputs[0]], ROWS[:, -1:])
    assert any("a negative index, -1" in warning for warning in evaluation.warnings)


def test_scatter_topk_one_hot_and_non_zero() -> None:
    """What is placed, ordered, marked and found."""
    index = torch.tensor([[1, 0, 3, 2, 4]] * 3)

    def build(net: Any, given: list[Any]) -> Any:
        scatter = net.add_scatter(given[0], given[1], given[0], trt.ScatterMode.ELEMENT)
        scatter.axis = 1
        topk = net.add_topk(given[0], trt.TopKOperation.MAX, 2, 0b10)
        return first(scatter), topk.get_output(0), topk.get_output(1)

    placed, values, indices = evaluated(build, ROWS, index)
    torch.testing.assert_close(placed, ROWS.scatter(1, index, ROWS))
    wanted = ROWS.topk(2, 1)
    torch.testing.assert_close(values, wanted.values)
    assert torch.equal(indices.long(), wanted.indices)
    (found,) = evaluated(lambda net, given: first(net.add_non_zero(given[0])), (ROWS > 0))
    assert torch.equal(found.long(), (ROWS > 0).nonzero().T)


def test_slices() -> None:
    """Steps, reverse order, and what lies beyond the bounds."""
    (found,) = evaluated(lambda net, given: first(net.add_slice(given[0], (0, 4), (3, 3), (1, -2))), ROWS)
    torch.testing.assert_close(found, ROWS[:, [4, 2, 0]])
    beyond = made(lambda net, given: first(net.add_slice(given[0], (0, 0), (4, 5), (1, 1))), ROWS)
    with pytest.raises(NetworkError, match="out of bounds"):
        beyond.evaluate({"x0": ROWS})
    number = made(lambda net, given: first(net.add_slice(given[0], (), (), ())), torch.tensor(3.0))
    assert any(
        "a slice of a tensor without axes" in warning for warning in number.evaluate({"x0": torch.tensor(3.0)}).warnings
    )


@pytest.mark.parametrize("mode", ["NEAREST", "LINEAR"])
def test_resize(mode: str) -> None:
    """To another size, by half pixels."""

    def build(net: Any, given: list[Any]) -> Any:
        layer = net.add_resize(given[0])
        layer.shape, layer.resize_mode = (2, 3, 18, 12), getattr(trt.InterpolationMode, mode)
        layer.coordinate_transformation = (
            trt.ResizeCoordinateTransformation.ASYMMETRIC
            if mode == "NEAREST"
            else trt.ResizeCoordinateTransformation.HALF_PIXEL
        )
        layer.nearest_rounding = trt.ResizeRoundMode.FLOOR
        return first(layer)

    (found,) = evaluated(build, IMAGE, dynamic=False)
    expected = F.interpolate(IMAGE, (18, 12), mode={"NEAREST": "nearest", "LINEAR": "bilinear"}[mode])
    torch.testing.assert_close(found, expected)


def test_the_nearest_row_in_single_precision() -> None:
    """3 / 0.3 is 10 in float32, in kernels and in PyTorch, and a little less in float64."""
    column = torch.arange(40.0).reshape(1, 1, 20, 2)

    def build(net: Any, given: list[Any]) -> Any:
        layer = net.add_resize(given[0])
        layer.scales, layer.resize_mode = (1.0, 1.0, 0.3, 1.0), trt.InterpolationMode.NEAREST
        layer.coordinate_transformation = trt.ResizeCoordinateTransformation.ASYMMETRIC
        layer.nearest_rounding = trt.ResizeRoundMode.FLOOR
        return first(layer)

    (found,) = evaluated(build, column, dynamic=False)
    assert found[0, 0, :, 0].tolist() == [0.0, 6.0, 12.0, 20.0, 26.0, 32.0]
    torch.testing.assert_close(found, F.interpolate(column, scale_factor=(0.3, 1.0), mode="nearest"))


def test_a_loop_concatenates_and_keeps_its_last_value() -> None:
    """A running mean over a length that varies."""

    def build(net: Any, given: list[Any]) -> Any:
        length = first(net.add_gather(first(net.add_shape(given[0])), constant(net, np.array([0], np.int64)), 0))
        scalar = net.add_shuffle(first(net.add_cast(length, trt.int32)))
        scalar.reshape_dims = ()
        loop = net.add_loop()
        loop.add_trip_limit(first(scalar), trt.TripLimit.COUNT)
        state = loop.add_recurrence(constant(net, np.zeros(5, np.float32)))
        half = constant(net, np.full(5, 0.5, np.float32))
        faded = first(net.add_elementwise(first(state), half, trt.ElementWiseOperation.PROD))
        following = first(
            net.add_elementwise(faded, first(loop.add_iterator(given[0], 0)), trt.ElementWiseOperation.SUM)
        )
        state.set_input(1, following)
        last = loop.add_loop_output(first(state), trt.LoopOutput.LAST_VALUE, 0)
        every = loop.add_loop_output(following, trt.LoopOutput.CONCATENATE, 0)
        every.set_input(1, first(scalar))
        return first(last), first(every)

    for count in (1, 2, 7):
        x, state, states = torch.randn(count, 5), torch.zeros(5), []
        for row in x:
            state = state * 0.5 + row
            states.append(state)
        last, every = evaluated(build, x)
        torch.testing.assert_close(last, state)
        torch.testing.assert_close(every, torch.stack(states))


def test_a_loop_in_a_loop() -> None:
    """The inner one takes what the outer one keeps, and gives what it keeps next: as bags of embeddings are built."""

    def number(net: Any, value: int) -> Any:
        return constant(net, np.array(value, np.int32))

    def build(net: Any, given: list[Any]) -> Any:
        outer = net.add_loop()
        outer.add_trip_limit(number(net, 3), trt.TripLimit.COUNT)
        kept = outer.add_recurrence(constant(net, np.zeros(5, np.float32)))
        row = first(outer.add_iterator(given[0], 0))
        start = first(net.add_elementwise(first(kept), row, trt.ElementWiseOperation.SUM))
        inner = net.add_loop()
        inner.add_trip_limit(number(net, 2), trt.TripLimit.COUNT)
        state = inner.add_recurrence(start)
        faded = first(net.add_elementwise(first(state), first(kept), trt.ElementWiseOperation.SUM))
        state.set_input(1, first(net.add_elementwise(faded, row, trt.ElementWiseOperation.PROD)))
        following = first(inner.add_loop_output(first(state), trt.LoopOutput.LAST_VALUE, 0))
        kept.set_input(1, following)
        every = outer.add_loop_output(following, trt.LoopOutput.CONCATENATE, 0)
        every.set_input(1, number(net, 3))
        return first(every)

    x, kept, states = torch.randn(3, 5), torch.zeros(5), []
    for row in x:
        state = kept + row
        for _ in range(2):
            state = (state + kept) * row
        kept = state
        states.append(state)
    (every,) = evaluated(build, x, dynamic=False)
    torch.testing.assert_close(every, torch.stack(states))


def test_a_conditional_runs_the_branch_that_is_taken() -> None:
    """The other one need not be possible."""

    def build(net: Any, given: list[Any]) -> Any:
        conditional = net.add_if_conditional()
        conditional.set_condition(given[1])
        inside = first(conditional.add_input(given[0]))
        double = first(net.add_elementwise(inside, inside, trt.ElementWiseOperation.SUM))
        negative = first(net.add_unary(inside, trt.UnaryOperation.NEG))
        return first(conditional.add_output(double, negative))

    for flag, wanted in ((True, ROWS * 2), (False, -ROWS)):
        (found,) = evaluated(build, ROWS, torch.tensor(flag), dynamic=False)
        torch.testing.assert_close(found, wanted)


def test_any_tensor_may_be_asked_for() -> None:
    """Only what it needs is computed."""
    network = made(
        lambda net, given: first(
            net.add_unary(first(net.add_unary(given[0], trt.UnaryOperation.EXP)), trt.UnaryOperation.NEG)
        ),
        ROWS,
    )
    inner = network.tensors[0]
    torch.testing.assert_close(network.evaluate({"x0": ROWS}, [inner]).values[inner], ROWS.exp())
    assert [step.kind for step in network.steps] == ["UNARY", "UNARY"]
    with pytest.raises(NetworkError, match="no layer gives the tensor 'nothing'"):
        network.evaluate({"x0": ROWS}, ["nothing"])
    with pytest.raises(NetworkError, match="no value for the input 'x0'"):
        network.evaluate({})


def test_budgets() -> None:
    """Time and memory that are used up are an outcome."""
    network = made(lambda net, given: first(net.add_unary(given[0], trt.UnaryOperation.EXP)), ROWS)
    with pytest.raises(BudgetExceededError, match="longer than it may"):
        network.evaluate({"x0": ROWS}, seconds=-1.0)
    with pytest.raises(BudgetExceededError, match="more than 8 bytes"):
        network.evaluate({"x0": ROWS}, memory=8)


def test_a_layer_without_a_meaning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never guessed at."""
    network = made(lambda net, given: first(net.add_unary(given[0], trt.UnaryOperation.EXP)), ROWS)
    monkeypatch.delitem(LAYERS, "UNARY")
    with pytest.raises(UnknownLayerError, match=r"\(UNARY\) cannot be evaluated"):
        network.evaluate({"x0": ROWS})


def test_a_binding_of_another_type_is_noted() -> None:
    """It is converted, as a loader would have to."""
    network = made(lambda net, given: first(net.add_unary(given[0], trt.UnaryOperation.ABS)), ROWS)
    evaluation = network.evaluate({"x0": ROWS.double()})
    assert any("takes torch.float32, it was given torch.float64" in warning for warning in evaluation.warnings)


def test_a_given_tensor_is_not_computed() -> None:
    """What follows is computed of it, and what comes before is not."""
    names: list[str] = []

    def build(net: Any, given: list[Any]) -> Any:
        doubled = net.add_elementwise(given[0], given[0], trt.ElementWiseOperation.SUM).get_output(0)
        names.append(doubled.name)
        return net.add_unary(doubled, trt.UnaryOperation.NEG).get_output(0)

    network, x = made(build, torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0])
    (output,) = network.outputs
    assert network.evaluate({"x0": x}).values[output].tolist() == [-2.0, -4.0]
    assert network.evaluate({"x0": x, names[0]: x * 5}).values[output].tolist() == [-5.0, -10.0]
