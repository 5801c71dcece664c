"""Where a module is less free than the data suggest: inferred dimensions give in, those asked for are errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.artifact.manifest import Source
from lightning_trt_windows.capture.constraint_fixes import Suggestion, only_truisms, suggestions
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.export.narrowed_capture import capture_narrowed

BATCH = DimRange(1, 4, 16, name="batch")


def found(spec: InputSpec, kind: str) -> Discovered:
    """``x`` as discovery gives it, observed or asked for."""
    return Discovered({"x": spec}, {"x": Source(kind=kind, reason="r", dims=("a",) * len(spec.shape))})


class OneSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.transpose(1, 2)


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, 8)


class Longest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions[: x.shape[1]]


CASES = [
    (OneSize, (DimRange(4, 10, 20, name="t"), 4), (10, 4), "t (x.1) is static at 10"),
    (
        Square,
        (DimRange(4, 10, 20, name="h"), DimRange(4, 10, 24, name="w")),
        (DimRange(4, 10, 20, name="h"), DimRange(4, 10, 20, name="h")),
        "w (x.2) is now 4..10..20: it must equal h",
    ),
    (Steps, (DimRange(5, 16, 37, name="t"),), (DimRange(8, 16, 32, name="t", multiple_of=8),), "multiples of 8"),
    (Longest, (DimRange(2, 16, 128, name="t"), 4), (DimRange(2, 16, 64, name="t"), 4), "sizes to 64 only"),
]


@pytest.mark.parametrize(("module", "shape", "wanted", "note"), CASES, ids=[case[0].__name__ for case in CASES])
def test_inferred_dimensions_give_in(module: type, shape: tuple, wanted: tuple, note: str) -> None:
    """What was only seen becomes static, equal, narrower or stepped as the module insists; the manifest says so."""
    _, discovered = capture_narrowed(module(), found(InputSpec((BATCH, *shape)), "observed"), "forward")
    assert discovered.inputs["x"].shape == (BATCH, *wanted)
    assert note in discovered.notes[-1]
    assert any("; " in dim for dim in discovered.sources["x"].dims)


@pytest.mark.parametrize(("module", "shape"), [case[:2] for case in CASES], ids=[case[0].__name__ for case in CASES])
def test_dimensions_asked_for_are_errors(module: type, shape: tuple) -> None:
    """What the user asked for is not changed behind his back: argument, axis, range and remedy are named."""
    with pytest.raises(CaptureError, match=r"x\.\d \(\w, .*\) cannot be as dynamic as you asked for: .* Change its"):
        capture_narrowed(module(), found(InputSpec((BATCH, *shape)), "argument"), "forward")


def test_a_real_export_that_gave_in(tmp_path: Path) -> None:
    """A loop over the steps, in Python, gets an engine for one length, and says so in its manifest."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            states = [x.new_zeros(x.shape[0], 8)]
            for step in x.unbind(1):
                states.append(self.cell(step, states[-1]))
            return torch.stack(states[1:], 1)

    class Data:
        def predict_dataloader(self) -> DataLoader:
            return DataLoader([torch.randn(3, length, 4) for length in (7, 9, 9, 12)], batch_size=None)

    artifact = export_module(Tagger(), None, tmp_path / "m.windows.ep", datamodule=Data())
    (record,) = artifact.manifest.inputs
    assert (record.min[1], record.max[1]) == (9, 9)
    assert any("tracing fixes it at 9" in note for note in artifact.manifest.notes)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("  t = 10", [Suggestion("t", static=10)]),
        ("  w = h", [Suggestion("w", same_as="h")]),
        ("  t = Dim('t', min=8, max=64)", [Suggestion("t", min=8, max=64)]),
        ("  t = Dim('t', max=64)", [Suggestion("t", max=64)]),
        ("  _t = Dim('_t', min=1, max=4)\n  t = 8*_t", [Suggestion("t", min=8, max=32, multiple_of=8)]),
        ("  t = 10\n  batch = 4", [Suggestion("t", static=10), Suggestion("batch", static=4)]),
    ],
)
def test_suggestions_are_read(lines: str, wanted: list[Suggestion]) -> None:
    """Every form that torch.export writes them in."""
    message = f"Constraints violated!\n  - something\nSuggested fixes:\n{lines}\n\nThe error above occurred"
    assert list(suggestions(message)) == wanted


@pytest.mark.parametrize(
    ("guard", "true"),
    [
        ("min(16*L['ids'].size()[1], 32*L['ids'].size()[1]) == (16*L['ids'].size()[1])", True),
        ("min(L['ids'].size()[1]**2, 2*L['ids'].size()[1]**2) == L['ids'].size()[1]**2", True),
        ("((L['ids'].size()[1] % 8)) == 0", False),
        ("L['ids'].size()[1] <= 12", False),
        ("L['ids'].size()[1] == L['other'].size()[1]", False),
        ("torch.sym_min(20, (-1) + L['ids'].size()[1]) >= 2", True),
        ("torch.sym_min(20, (-9) + L['ids'].size()[1]) >= 2", False),
        ("math.trunc(0.6*torch.sym_float(L['ids'].size()[1])) >= 5", True),
        ("math.ceil(0.6*torch.sym_float(L['ids'].size()[1])) == 6", False),
        ("__import__('os') == L['ids'].size()[1]", False),
        ("(1).real == L['ids'].size()[1]", False),
        ("math.nothing(L['ids'].size()[1]) == 1", False),
    ],
)  # fmt: skip
def test_constraints_that_hold_for_every_size(guard: str, true: bool) -> None:
    """What older PyTorch cannot prove is tried out for the sizes of the range."""
    values = "Not all values of dim1 = L['ids'].size()[1] in the specified range 9 <= dim1 <= 16"
    message = f"Constraints violated (dim1)!\n  - {values} satisfy the generated guard {guard}.\n"
    assert only_truisms(message) is true
    assert not only_truisms(message + "  - You marked dim2 as dynamic but it is constant.\n")
    assert not only_truisms("Constraints violated (dim1)!")


def test_no_suggestions() -> None:
    """Other messages have none."""
    assert suggestions("x must be a tensor") == ()


def test_steps_within_steps() -> None:
    """A dimension that is a multiple already keeps its step, and takes on another."""
    assert Suggestion("t", multiple_of=6).applied_to(DimRange(4, 16, 40, name="t", multiple_of=4)) == DimRange(
        12, 12, 36, name="t", multiple_of=12
    )
    assert Suggestion("_t", max=5).scaled(8, "t") == Suggestion("t", max=40, multiple_of=8)
