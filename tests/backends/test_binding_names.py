"""Bindings are called as the program calls its inputs and outputs; the engines are real."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.outlines import EnginesOnly
from support.stand_in import StandIn, export_for_test
from torch import Tensor, nn

from lightning_trt_windows import InputSpec
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.artifact.outline import Origin, read_outline

SPEC = InputSpec((2, 4))


def plans(stand_in: StandIn) -> list[bytes]:
    """The engines' bytes."""
    with EpFile(stand_in.artifact.path) as file:
        return [bytes(file.engine(engine)) for engine in stand_in.artifact.manifest.engines]


class Named(nn.Module):
    """Gives its input, squared, under names of the caller's choice."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: x**2 + number for number, name in enumerate(self.names)}


class TestOneEngine:
    """A program that is one engine."""

    def test_names_of_the_program(self, tmp_path: Path) -> None:
        """Inputs and outputs; the first of two outputs that are one tensor has its name. They stand in the engine."""
        stand_in = export_for_test(EnginesOnly(), EnginesOnly.inputs(), tmp_path / "m.windows.ep")
        (engine,) = stand_in.artifact.manifest.engines
        assert engine.inputs == ("ids", "image")
        assert engine.outputs == ("output.b", "output.a", "output.tokens")
        (plan,) = plans(stand_in)
        assert [name for name in (*engine.inputs, *engine.outputs) if name.encode() not in plan] == []
        check = stand_in.artifact.manifest.check
        assert check is not None
        assert {"min", "max"} <= {sizes.name for sizes in check.compared}

    def test_nested_arguments(self, tmp_path: Path) -> None:
        """They have dotted names, which TensorRT takes, whatever the language."""

        class Nested(nn.Module):
            def forward(self, batch: dict[str, Tensor]) -> Tensor:
                return batch["image"] * 2 + batch["größe"]

        stand_in = export_for_test(Nested(), {"batch": {"image": SPEC, "größe": SPEC}}, tmp_path / "m.windows.ep")
        (engine,) = stand_in.artifact.manifest.engines
        assert set(engine.inputs) == {"batch.image", "batch.größe"}
        assert engine.outputs == ("output",)
        (plan,) = plans(stand_in)
        assert "batch.größe".encode() in plan

    def test_an_output_called_as_an_input(self, tmp_path: Path) -> None:
        """The input keeps the name."""

        class Same(nn.Module):
            def forward(self, output: Tensor) -> Tensor:
                return output * 2

        stand_in = export_for_test(Same(), {"output": SPEC}, tmp_path / "m.windows.ep")
        (engine,) = stand_in.artifact.manifest.engines
        assert (engine.inputs, engine.outputs) == (("output",), ("_run_on_acc_0.output0",))

    @pytest.mark.parametrize("name", ["50%", "x" * 5000])
    def test_names_that_bindings_cannot_have(self, tmp_path: Path, name: str) -> None:
        """Upstream joins names by "%"; TensorRT takes less than 4096 bytes. The other output has its own name."""
        stand_in = export_for_test(Named(name, "plain"), {"x": SPEC}, tmp_path / "m.windows.ep")
        (engine,) = stand_in.artifact.manifest.engines
        assert engine.outputs == ("_run_on_acc_0.output0", "output.plain")

    def test_a_name_that_upstream_gives(self, tmp_path: Path) -> None:
        """An input that is called as upstream calls outputs, and one that it calls so itself."""

        class Odd(nn.Module):
            def forward(self, output0: Tensor, output1: Tensor) -> tuple[Tensor, Tensor]:
                return output0 + output1, output0 - output1

        stand_in = export_for_test(Odd(), {"output0": SPEC, "output1": SPEC}, tmp_path / "m.windows.ep")
        (engine,) = stand_in.artifact.manifest.engines
        assert (engine.inputs, engine.outputs) == (("output0", "output1"), ("output.0", "output.1"))
        (plan,) = plans(stand_in)
        assert b"output.1" in plan
        a, b = torch.randn(2, 4), torch.randn(2, 4)
        torch.testing.assert_close(stand_in.load()(a, b), (a + b, a - b))


class Parts(nn.Module):
    """Two engines: ``x`` goes into both, and one value from the first into the second and into PyTorch."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = torch.relu(x @ x)
        strange = torch.special.airy_ai(first)
        last = (strange + first).sin() * x
        return {"last": last, "strange": strange, "count": last.sum()}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """The artifact of ``Parts``."""
    path = tmp_path_factory.mktemp("parts") / "m.windows.ep"
    return export_for_test(Parts(), {"x": InputSpec((4, 4))}, path, min_block_size=1)


class TestSeveralEngines:
    """Engines with PyTorch between them."""

    def test_one_value_has_one_name(self, stand_in: StandIn) -> None:
        """Wherever it enters or leaves an engine; and two values never share one."""
        engines = stand_in.artifact.manifest.engines
        outline = read_outline(stand_in.artifact)
        assert len(outline.calls) == 2
        names: dict[Origin, set[str]] = {}
        for call in outline.calls:
            for origin, binding in zip(call.inputs, engines[call.engine].inputs):
                names.setdefault(origin, set()).add(binding)
            for number, binding in enumerate(engines[call.engine].outputs):
                names.setdefault(Origin("engine", call.engine, number), set()).add(binding)
        assert all(len(found) == 1 for found in names.values())
        assert len(set.union(*names.values())) == len(names)

    def test_what_passes_between_engines(self, stand_in: StandIn) -> None:
        """It is called by the engine that gives it; what the program returns by the program."""
        first, second = stand_in.artifact.manifest.engines
        assert (first.inputs, first.outputs) == (("x",), ("_run_on_acc_0.output0",))
        assert {"x", "_run_on_acc_0.output0"} < set(second.inputs)
        assert second.outputs == ("output.last", "output.count")

    def test_the_program_runs(self, stand_in: StandIn) -> None:
        """With the partitions in the place of the engines."""
        x = torch.randn(4, 4)
        torch.testing.assert_close(stand_in.load()(x), Parts()(x))
