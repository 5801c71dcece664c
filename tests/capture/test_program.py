"""Capture: what goes in and comes out, and that the module never notices."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.capture.program import capture
from lightning_trt_windows.errors import CaptureError, CheckpointError, ConfigurationError
from lightning_trt_windows.modules.state import weights_swapped

BATCH = DimRange(1, 4, 16, name="batch")


class Net(nn.Module):
    """Dropout and BatchNorm, so that the mode matters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Branch(Net):
    """Control flow that depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.body(x)
        return x


@dataclass
class Scores:
    """A result that PyTorch does not know."""

    first: Tensor
    rest: list[Tensor]


class Boxes(NamedTuple):
    """A result that PyTorch knows, and cannot save."""

    first: Tensor
    rest: list[Tensor]


def fingerprint(module: nn.Module) -> list[Any]:
    """Everything about a module and the random state that a capture must not change."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [
        [(name, id(t), t.data_ptr(), t._version, t.requires_grad, t.device) for name, t in tensors],
        [(name, None if p.grad is None else p.grad.tolist()) for name, p in module.named_parameters()],
        [(name, m.training, id(m), dict(m.__dict__).keys()) for name, m in module.named_modules()],
        [(name, list(m._forward_hooks), list(m._forward_pre_hooks)) for name, m in module.named_modules()],
        {name: t.tolist() for name, t in module.state_dict().items()},
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
    ]


def prepared(module: nn.Module) -> nn.Module:
    """In the middle of training: some of it frozen and in eval mode, gradients there, hooks attached."""
    module(torch.rand(3, 4)).sum().backward()
    module.body[1].eval()
    module.body[0].weight.requires_grad_(False)
    module.register_forward_hook(lambda *_: None)
    return module


class TestModuleUnchanged:
    """The module comes back as it was."""

    def test_after_success(self) -> None:
        """Modes, weights, gradients, hooks and random state are untouched by a capture."""
        module = prepared(Net())
        before = fingerprint(module)
        capture(module, {"x": InputSpec((BATCH, 4))})
        assert fingerprint(module) == before

    def test_after_failure(self) -> None:
        """Modes, weights, gradients, hooks and random state are untouched by a capture that fails."""
        module = prepared(Branch())
        before = fingerprint(module)
        with pytest.raises(CaptureError):
            capture(module, {"x": InputSpec((BATCH, 4))})
        assert fingerprint(module) == before

    def test_swapped_weights_go_back(self) -> None:
        """A checkpoint's weights are in the program; the module has its own again, the very same tensors."""
        module = prepared(Net())
        state = {name: torch.full_like(t, 7) for name, t in module.state_dict().items()}
        before = fingerprint(module)
        with weights_swapped(module, state, where="a.ckpt"):
            program = capture(module, {"x": InputSpec((BATCH, 4))}).program
        assert fingerprint(module) == before
        assert all(bool((t == 7).all()) for t in program.state_dict.values())

    def test_swapped_weights_go_back_after_a_misfit(self) -> None:
        """Weights that do not fit are an error that names the checkpoint and the layers; the module keeps its own."""
        module = prepared(Net())
        before = fingerprint(module)
        state = {**module.state_dict(), "body.0.weight": torch.zeros(9, 4)}
        with (
            pytest.raises(CheckpointError, match=r"(?s)weights in a\.ckpt do not fit Net.*body\.0\.weight"),
            weights_swapped(module, state, where="a.ckpt"),
        ):
            pass
        assert fingerprint(module) == before

    def test_after_running_it(self) -> None:
        """Outputs of an unknown class make it run in eager: what it writes to buffers and attributes is forgotten."""

        class Result:
            pass

        class Counts(Net):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("calls", torch.zeros(1))
                self.last: Any = None

            def forward(self, x: Tensor) -> Any:
                self.calls += 1
                self.last = self.body(x)
                return Result()

        module = Counts()
        before = fingerprint(module)
        with pytest.raises(CaptureError, match="Result"):
            capture(module, {"x": InputSpec((BATCH, 4))})
        assert fingerprint(module) == before and module.last is None

    @pytest.mark.parametrize("how", ["whole", "inside", "in place", "function"])
    def test_compiled(self, how: str) -> None:
        """What torch.compile wraps is traced, at any depth, and stays compiled."""

        class Function(Net):
            def forward(self, x: Tensor) -> Tensor:
                return torch.compile(torch.relu)(self.body(x))

        net = Function() if how == "function" else Net()
        module: Any = net
        if how == "whole":
            module = torch.compile(net)
        if how == "inside":
            net.body = torch.compile(net.body)
        if how == "in place":
            net.compile()
        before = fingerprint(module)
        program = capture(module, {"x": InputSpec((BATCH, 4))}).program
        assert fingerprint(module) == before
        x = torch.randn(3, 4)
        with torch.compiler.set_stance("force_eager"), torch.no_grad():
            torch.testing.assert_close(program.module()(x), net.eval()(x))

    def test_train_is_not_called(self) -> None:
        """An overridden train() with side effects (adapters that merge their weights) is not called."""

        class Adapter(Net):
            def train(self, mode: bool = True) -> Any:
                raise AssertionError("train() was called")

        capture(Adapter(), {"x": InputSpec((BATCH, 4))})


class TestPrograms:
    """What the program is."""

    def test_eval_mode(self) -> None:
        """A module in train mode is captured as in eval mode: no dropout, no batch statistics."""
        program = capture(Net().train(), {"x": InputSpec((BATCH, 4))}).program
        x = torch.randn(5, 4)
        torch.testing.assert_close(program.module()(x), program.module()(x))
        assert not program.graph_signature.buffers_to_mutate

    def test_ranges_and_names(self) -> None:
        """The range is inclusive on both sides, and outputs follow the input's dimension by name."""
        captured = capture(Net(), {"x": InputSpec((BATCH, 4))})
        (bounds,) = captured.program.range_constraints.values()
        assert (bounds.lower, bounds.upper) == (1, 16)
        assert captured.inputs[0].symbols == ("batch", None)
        assert captured.outputs[0].shape == ("batch", 2)

    def test_traced_where_it_is(self) -> None:
        """Example tensors are made on the module's device; a module on the meta device shows it without a GPU."""
        from lightning_trt_windows.capture.dimensions import Dimensions

        assert Dimensions(torch.device("meta")).example("x", InputSpec((BATCH, 4))).device.type == "meta"

    def test_opt_of_one_is_traced_at_two(self) -> None:
        """torch.export takes a traced size of 1 for a constant; the range still begins at 1."""
        captured = capture(Net(), {"x": InputSpec((DimRange(1, 1, 8, name="batch"), 4))})
        (bounds,) = captured.program.range_constraints.values()
        assert (bounds.lower, bounds.upper) == (1, 8)

    def test_multiple_of(self) -> None:
        """A dimension in steps is one symbol times the step, in the input and in the output."""

        class Down(nn.Conv2d):
            pass

        side = DimRange(32, 64, 128, name="side", multiple_of=32)
        captured = capture(Down(3, 4, 32, stride=32), {"input": InputSpec((BATCH, 3, side, side))})
        assert captured.outputs[0].shape == ("batch", 4, "side/32", "side/32")

    def test_nested_and_keyword_arguments(self) -> None:
        """Dicts, tuples, keyword-only arguments and constants keep their places and names."""

        class Module(nn.Module):
            def forward(self, a: Tensor, batch: Any, scale: float = 1.0, *, flag: bool, mask: Tensor) -> Any:
                image, (left, right) = batch["image"], batch["pair"]
                return {"out": (a + image + left * right) * scale, "both": (mask, a if flag else left)}

        spec = InputSpec((BATCH, 4))
        inputs = {"a": spec, "batch": {"image": spec, "pair": (spec, spec)}, "flag": True, "mask": spec}
        captured = capture(Module(), inputs)
        names = [item.name for item in captured.inputs]
        assert names == ["a", "batch.image", "batch.pair.0", "batch.pair.1", "mask"]
        assert [record.name for record in captured.outputs] == ["output.out", "output.both.0", "output.both.1"]
        x = torch.randn(3, 4)
        result = captured.program.module()(x, {"image": x, "pair": (x, x)}, flag=True, mask=x)
        torch.testing.assert_close(result["out"], x + x + x * x)

    def test_integers_stay_inside_their_values(self) -> None:
        """Token ids are traced with values from the vocabulary."""
        captured = capture(nn.Embedding(5, 3), {"input": InputSpec((BATCH, 7), "int64", values=(0, 4))})
        assert captured.outputs[0].shape == ("batch", 7, 3)

    @pytest.mark.parametrize("cls", [Scores, Boxes])
    def test_outputs_of_ones_own_classes(self, cls: Any) -> None:
        """Dataclasses and NamedTuples among the outputs need no registration: not for tracing and not for saving."""

        class Module(Net):
            def forward(self, x: Tensor) -> Any:
                return {"result": cls(self.body(x), [x * 2])}

        captured = capture(Module(), {"x": InputSpec((BATCH, 4))})
        assert [r.name for r in captured.outputs] == ["output.result.first", "output.result.rest.0"]
        result = captured.program.module()(torch.randn(3, 4))["result"]
        assert type(result) is cls and result.first.shape == (3, 2)
        torch.export.save(captured.program, io.BytesIO())

    def test_a_submodule(self) -> None:
        """By its path: its own signature, and no weights but its own."""
        net = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2))
        captured = capture(net, {"input": InputSpec((DimRange(1, 2, 8), 4))}, method="0.0")
        assert list(captured.program.state_dict) == ["weight", "bias"]
        assert [item.name for item in captured.inputs] == ["input"]
        with pytest.raises(ConfigurationError, match=r"Sequential has no method '7' .*method='0\.7'.*there are 0, 1"):
            capture(net, {"input": InputSpec((4,))}, method="0.7")

    def test_another_method(self) -> None:
        """Another method can be exported, with its own signature."""

        class Module(Net):
            def predict_step(self, batch: Tensor) -> Tensor:
                return self(batch).softmax(-1)

        captured = capture(Module(), {"batch": InputSpec((BATCH, 4))}, method="predict_step")
        result = captured.program.module()(torch.randn(3, 4))
        torch.testing.assert_close(result.sum(-1), torch.ones(3))


class TestMessages:
    """What people read."""

    def test_data_dependent_control_flow(self) -> None:
        """The line of the model that cannot be traced is named, with its text."""
        with pytest.raises(CaptureError, match=r"Branch\.forward at test_program\.py:\d+ \(if x\.sum\(\) > 0:\)"):
            capture(Branch(), {"x": InputSpec((BATCH, 4))})

    def test_outputs_of_unknown_classes(self) -> None:
        """A class that nobody can take apart is named with its place among the outputs, and what to write for it."""

        class Opaque:
            def __init__(self, value: Tensor) -> None:
                self.value = value

        class Module(Net):
            def forward(self, x: Tensor) -> Any:
                return {"deep": [Opaque(self.body(x))]}

        with pytest.raises(CaptureError, match=r"(?s)output\.deep\.0 is a Opaque.*register_pytree_node"):
            capture(Module(), {"x": InputSpec((BATCH, 4))})

    def test_unknown_argument(self) -> None:
        """An input that forward does not have is refused with those it has."""
        with pytest.raises(ConfigurationError, match=r"Net\.forward has no argument y; its arguments are x"):
            capture(Net(), {"y": InputSpec((BATCH, 4))})

    def test_missing_argument(self) -> None:
        """A required argument without a shape is named, with what to write."""
        with pytest.raises(ConfigurationError, match=r"needs x.*inputs=\{'x': InputSpec"):
            capture(Net(), {})

    def test_one_name_two_ranges(self) -> None:
        """Dimensions of one name have one range."""

        class Module(nn.Module):
            def forward(self, a: Tensor, b: Tensor) -> Tensor:
                return a + b

        inputs = {"a": InputSpec((BATCH, 4)), "b": InputSpec((DimRange(1, 4, 8, name="batch"), 4))}
        with pytest.raises(ConfigurationError, match=r"'batch' is 1\.\.4\.\.16 in one input and 1\.\.4\.\.8 in b\[0\]"):
            capture(Module(), inputs)

    def test_a_dimension_that_must_be_static(self) -> None:
        """A range that the module cannot have is refused with torch.export's suggestion."""

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.reshape(4, 4)

        with pytest.raises(CaptureError, match=r"(?s)Suggested fixes.*batch = 4"):
            capture(Module(), {"x": InputSpec((BATCH, 4))})
