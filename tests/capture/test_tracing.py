"""Modules of which the usual trace fixes a dimension, or none comes out, and which work at every size all the same."""

from __future__ import annotations

import random
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.capture.conditions import without_checks
from lightning_trt_windows.capture.program import Captured, capture
from lightning_trt_windows.capture.tracing import DimensionError
from lightning_trt_windows.errors import CaptureError

BATCH = DimRange(1, 4, 8, "batch")


def agrees(found: Captured, module: nn.Module, *shapes: tuple[int, ...]) -> None:
    """The program computes what the module does, at each of ``shapes``."""
    for shape in shapes:
        x = torch.rand(shape)
        torch.testing.assert_close(found.program.module()(x), module.eval()(x))


class Backbone(nn.Module):
    """Halves images five times and averages: of 32 pixels one is left, which PyTorch takes for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(5)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("opt", [32, 48, 64])
def test_feature_maps_of_one_pixel(opt: int) -> None:
    """32 to 64 works, wherever it is tuned for."""
    side = {"h": DimRange(32, opt, 64, "h"), "w": DimRange(32, opt, 64, "w")}
    net = Backbone()
    found = capture(net, {"x": InputSpec((BATCH, 3, side["h"], side["w"]))})
    bounds = sorted((int(b.lower), int(b.upper)) for b in found.program.range_constraints.values())
    assert bounds == [(1, 8), (32, 64), (32, 64)] or bounds == [(2, 8), (32, 64), (32, 64)]
    agrees(found, net, (2, 3, 32, 32), (2, 3, 32, 40), (3, 3, 64, 33), (8, 3, 64, 64))


@pytest.mark.parametrize("low", [2, 3])
def test_differences_of_neighbours(low: int) -> None:
    """``x[:, 1:] - x[:, :-1]`` of two elements has one."""

    class Difference(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 1:] - x[:, :-1]

    net = Difference()
    found = capture(net, {"x": InputSpec((BATCH, DimRange(low, 5, 9), 6))})
    agrees(found, net, (2, low, 6), (3, 9, 6))


def test_len_and_int() -> None:
    """Python's own numbers of sizes."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), -1) * int(x.shape[1])

    net = Net()
    agrees(capture(net, {"x": InputSpec((DimRange(1, 8, 32), 2, 3))}), net, (2, 2, 3), (32, 2, 3))


def test_arguments_of_distributions() -> None:
    """They are checked by value, which a trace cannot do; the setting comes back."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Any:
            mean, scale = x.chunk(2, -1)
            return Normal(mean, nn.functional.softplus(scale) + 1e-3).mean

    before = Distribution._validate_args
    net = Net()
    agrees(capture(net, {"x": InputSpec((BATCH, 4))}), net, (2, 4), (8, 4))
    assert Distribution._validate_args is before


def test_assertions_on_values() -> None:
    """They stay in Python's code: what they check cannot be known."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[-1] == 4 and x.ndim == 2
            return x * 2

    net = Net()
    agrees(capture(net, {"x": InputSpec((BATCH, 4))}), net, (2, 4), (8, 4))


class Windows(nn.Module):
    """Attention in windows of 7, padded, as in SAM and Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        batch, high, wide, width = x.shape
        down, right = (7 - high % 7) % 7, (7 - wide % 7) % 7
        x = nn.functional.pad(x, (0, 0, 0, right, 0, down))
        rows, columns = (high + down) // 7, (wide + right) // 7
        x = x.view(batch, rows, 7, columns, 7, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, 49, width)
        q, k, v = self.qkv(x).chunk(3, -1)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x.view(batch, rows, columns, 7, 7, width).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, rows * 7, columns * 7, width)[:, :high, :wide]


def test_windows_of_attention() -> None:
    """Padded to whole windows, of any size."""
    net = Windows()
    found = capture(net, {"x": InputSpec((BATCH, DimRange(8, 12, 24), DimRange(8, 10, 24), 8))})
    agrees(found, net, (2, 8, 8, 8), (3, 15, 20, 8), (8, 24, 24, 8))
    # where nothing is padded PyTorch's checks fail, which no engine has, and the numbers are right
    module = without_checks(found.program)
    for shape in ((3, 14, 20, 8), (2, 21, 21, 8), (1, 9, 14, 8)):
        x = torch.rand(shape)
        torch.testing.assert_close(module(x), net(x))


class TestWhatStays:
    """Dimensions that no trace leaves free."""

    class Loop(nn.Module):
        """As many steps as there are."""

        def forward(self, x: Tensor) -> Tensor:
            state = x[:, 0]
            for step in range(x.shape[1]):
                state = torch.tanh(state + x[:, step])
            return state

    def test_the_complaint_is_that_of_the_usual_trace(self) -> None:
        """At the size that it is tuned for, with the suggestion to follow."""
        with pytest.raises(DimensionError, match=r"Loop\.forward") as caught:
            capture(self.Loop(), {"x": InputSpec((BATCH, DimRange(2, 5, 9, "t"), 6))})
        (suggestion,) = caught.value.suggestions
        assert (suggestion.symbol, suggestion.static) == ("t", 5)
        assert str(suggestion) == "tracing fixes it at 5"

    def test_a_trace_that_computes_something_else_does_not_count(self) -> None:
        """Short inputs take another way, which a trace at a larger size does not see."""

        class Short(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 2 if x.shape[1] < 5 else x + 1

        with pytest.raises(CaptureError) as caught:
            capture(Short(), {"x": InputSpec((BATCH, DimRange(2, 3, 9, "t"), 6))})
        assert isinstance(caught.value, DimensionError)
        (suggestion,) = caught.value.suggestions
        assert (suggestion.symbol, suggestion.max) == ("t", 4)

    def test_two_sizes_that_decide_together(self) -> None:
        """PyTorch makes it a check of the program, which lowering removes: the numbers would be wrong in silence."""

        class Together(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 2 if x.shape[1] != x.shape[2] + 3 else x + 1

        wide = InputSpec((BATCH, DimRange(8, 10, 24, "h"), DimRange(8, 9, 24, "w")))
        with pytest.raises(
            DimensionError, match=r"takes another branch where h != \(3 \+ w\) does not hold, as at h="
        ) as e:
            capture(Together(), {"x": wide})
        assert {(s.symbol, s.static) for s in e.value.suggestions} == {("h", 10), ("w", 9)}
        narrow = InputSpec((BATCH, DimRange(8, 10, 24, "h"), DimRange(22, 23, 24, "w")))
        agrees(capture(Together(), {"x": narrow}), Together(), (2, 24, 22), (8, 8, 24))

    def test_one_size_in_the_middle(self) -> None:
        """The larger part of the range is left."""

        class Hole(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 2 if x.shape[1] != 14 else x + 1

        with pytest.raises(DimensionError) as caught:
            capture(Hole(), {"x": InputSpec((BATCH, DimRange(8, 10, 24, "t")))})
        (suggestion,) = caught.value.suggestions
        assert (suggestion.min, suggestion.max) == (15, 24)
        assert str(suggestion) == "a trace works for sizes from 15 to 24 only"

    def test_decisions_on_values(self) -> None:
        """The line is named."""

        class Net(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 2 if x.sum() > 0 else x

        with pytest.raises(CaptureError, match=r"test_tracing\.py:\d+ \(return x \* 2 if x\.sum\(\) > 0 else x\)"):
            capture(Net(), {"x": InputSpec((BATCH, 4))})

    def test_the_module_is_as_before(self) -> None:
        """However often it was traced."""
        net = self.Loop().train()
        with pytest.raises(DimensionError):
            capture(net, {"x": InputSpec((BATCH, DimRange(2, 5, 9), 6))})
        assert net.training and "forward" not in vars(net)


def test_a_bound_that_is_a_fraction() -> None:
    """Of which PyTorch makes an AssertionError: what is said is which sizes work, in whole numbers."""

    class Parts(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return torch.vsplit(x, (1, 2))

    with pytest.raises(DimensionError, match=r"Suggested fixes:\n  n = Dim\('n', min=3, max=10\)") as refused:
        capture(Parts(), {"x": InputSpec((DimRange(1, 5, 10, "n"), 5, 5))})
    assert [(s.symbol, s.min) for s in refused.value.suggestions] == [("n", 3)]
    found = capture(Parts(), {"x": InputSpec((DimRange(3, 5, 10, "n"), 5, 5))})
    for ours, theirs in zip(found.program.module()(x := torch.rand(7, 5, 5)), Parts()(x), strict=True):
        torch.testing.assert_close(ours, theirs)


class DrawsElsewhere(nn.Module):
    """Numbers that are constants in a trace."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear, self.kind, self.calls = nn.Linear(4, 2), kind, types.SimpleNamespace(number=0)
        self.first = True

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.calls.number += 1
        if self.kind == "python":
            return y * random.random()
        if self.kind == "numpy":
            return y + float(np.random.randn())
        if self.kind == "count":
            return y * self.calls.number
        if self.kind == "torch":
            return y + torch.rand_like(y)
        if self.kind == "first":
            first, self.first = self.first, False
            return y * 2 if first else y
        x += 1  # it writes to its input
        return y


@pytest.mark.parametrize("kind", ["python", "numpy", "count", "torch", "first", "input"])
def test_what_differs_each_time_is_refused(kind: str) -> None:
    """A program would hold the numbers of one call, and nothing said so."""
    inputs = {"x": InputSpec((DimRange(1, 2, 4, name="batch"), 4))}
    module = DrawsElsewhere(kind).eval()
    states = random.getstate(), np.random.get_state()[1].tolist()
    if kind in ("python", "numpy", "count"):
        with pytest.raises(CaptureError, match=r"DrawsElsewhere\.forward gives something else each time"):
            capture(module, inputs)
    else:
        capture(module, inputs)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    assert (module.calls.number, module.first) == (0, True)


class CallsDivided(nn.Linear):
    """A ``__call__`` of its own."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x / 255)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["hook", "call"])
def test_what_forward_is_given_is_what_the_module_is_called_with(kind: str) -> None:
    """Ranges and types were those behind a hook, and the program ran it once more."""
    module = (CallsDivided if kind == "call" else nn.Linear)(4, 2).eval()
    if kind == "hook":
        module.register_forward_pre_hook(lambda _module, args: (args[0] / 255,))
    with pytest.raises(CaptureError, match="is given something else than"):
        capture(module, {"input": InputSpec((BATCH, 4))})


def test_hooks_that_change_no_input_are_taken() -> None:
    """Those of old weight norm, and one that only looks."""
    module = nn.utils.weight_norm(nn.Linear(4, 2)).eval()
    module.register_forward_pre_hook(lambda _module, args: args)
    agrees(capture(module, {"input": InputSpec((BATCH, 4))}), module, (1, 4), (8, 4))
