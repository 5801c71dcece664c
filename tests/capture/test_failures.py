"""What is said where a trace fails."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from torch import nn

from lightning_trt_windows import InputSpec
from lightning_trt_windows.capture.failures import (
    explain_unknown_classes,
    first_lines,
    line_in_model,
    one_way,
    quantised_for_cpus,
)
from lightning_trt_windows.capture.program import capture
from lightning_trt_windows.errors import CaptureError


class Boxes:
    """Nobody can take it apart."""


def test_the_innermost_line_that_is_the_users() -> None:
    """Neither torch's nor ours."""
    try:
        torch.nn.Linear(2, 2)(torch.ones(3, 4))  # the line
    except RuntimeError as error:
        found = line_in_model(error)
    assert found.startswith(" at test_failures.py:") and found.endswith("torch.ones(3, 4))  # the line)")


def test_a_line_that_the_message_quotes() -> None:
    """As torch.export quotes the user's stack."""
    error = RuntimeError('Could not guard\nFile "/home/me/model.py", line 12, in forward\n    if x.sum() > 0:\n')
    assert line_in_model(error) == " at model.py:12 (if x.sum() > 0:)"
    assert line_in_model(RuntimeError("nothing")) == ""


def test_what_counts_of_a_message() -> None:
    """Complaints and suggestions with the first line; the class alone where nothing is said."""
    message = "Constraints violated (t)!\n  - Not all values of t\n\nmuch else\nSuggested fixes:\n  t = 5\n\nmore"
    lines = "ValueError: Constraints violated (t)!\n  - Not all values of t\nSuggested fixes:\n  t = 5"
    assert first_lines(ValueError(message)) == lines
    assert first_lines(KeyError()) == "KeyError"


def test_classes_among_the_outputs_that_nobody_can_take_apart() -> None:
    """Where, and what to write."""
    error = CaptureError("it failed")
    explain_unknown_classes({"x": torch.ones(1), "boxes": [Boxes()]}, error)
    text = str(error)
    assert text.startswith("it failed\noutput.boxes.0 is a Boxes, which PyTorch cannot take apart.")
    assert "pytree.register_pytree_node(\n    Boxes," in text


def test_a_way_on_where_values_decide() -> None:
    """The submodules are named, the largest first; what has no weights is not."""
    net = torch.nn.ModuleDict({"act": torch.nn.ReLU(), "small": torch.nn.Linear(1, 1), "large": torch.nn.Linear(9, 9)})
    assert one_way(net).endswith("a submodule that does not decide, such as method='large' or method='small'")
    around = torch.nn.ModuleDict({"model": net})
    assert one_way(around).endswith("such as method='model.large' or method='model.small'")
    assert one_way(torch.nn.ReLU()).endswith("a submodule that does not decide")


def test_lines_of_pythons_own_library_are_not_the_users() -> None:
    """A failure below ``dataclasses.replace`` is named by the line that calls it."""
    try:
        dataclasses.replace(_Positive(1), number=-1)
    except ValueError as error:
        found = line_in_model(error)
    assert "test_failures.py" in found
    assert "raise ValueError" in found
    try:
        dataclasses.replace(_Positive(1), other=-1)  # type: ignore[call-arg]
    except TypeError as error:
        found = line_in_model(error)
    assert "test_failures.py" in found
    assert "dataclasses.replace" in found


@dataclasses.dataclass(frozen=True)
class _Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("it is negative")


def test_layers_that_were_quantised_for_cpus() -> None:
    """They are named, and what to do: PyTorch's own reason is about a field of its C++."""
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    assert quantised_for_cpus(module) == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
    wanted = r"0 is a torch\.ao\.nn\.quantized\.dynamic\.modules\.linear\.Linear, which computes in INT8 on CPUs only"
    with pytest.raises(CaptureError, match=wanted):
        capture(quantised, {"input": InputSpec((2, 4))})
