"""The program as a strip: engines and operators in the order of the real file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.artifacts import put

from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.manifest import CheckRecord, LeftToPyTorch
from lightning_trt_windows.bundle.strip import Segment, segments_in, segments_of, strip_figure


def test_the_sample_is_one_engine(tmp_path: Path) -> None:
    """With its name and its size; of a damaged file nothing is drawn."""
    artifact = read_artifact(put(tmp_path))
    (segment,) = segments_of(artifact)
    assert segment.engine == artifact.manifest.engines[0].name
    artifact.path.write_bytes(b"damaged")
    assert segments_of(artifact) == []


@pytest.mark.linux("engines are built on Linux")
def test_a_real_program_with_an_operator_that_tensorrt_lacks(tmp_path: Path) -> None:
    """An engine, and then airy_ai in PyTorch."""
    from support.outlines import Several

    from lightning_trt_windows import export_module

    artifact = export_module(Several(), Several.inputs(), tmp_path / "m.windows.ep")
    engine, operator = segments_of(artifact)
    assert engine.engine == artifact.manifest.engines[0].name
    assert (operator.engine, operator.text.partition(":")[0]) == ("", "aten.special_airy_ai.default")


def test_operators_between_engines_say_why(tmp_path: Path) -> None:
    """A run of operators is one part; what computes sizes is left out; the reason is the manifest's."""
    left = (LeftToPyTorch(operator="aten.div.Tensor", line="m.py:3", reason="differs by 0.5"),)
    check = CheckRecord(mode="auto", compared=(), not_checked=(), left_to_pytorch=left)
    notes = ("One use of aten.topk.default falls back to PyTorch: k is a <tensor>",)
    artifact = read_artifact(put(tmp_path, check=check, notes=notes))
    div, topk = "torch.ops.aten.div.Tensor", "torch.ops.aten.topk.default"
    steps = (0, div, "_operator.getitem", div, topk, 0, 0, "torch.ops.aten.sin.default")

    segments = segments_in(steps, artifact.manifest)
    assert [bool(segment.engine) for segment in segments] == [True, False, True, True, False]
    assert segments[1].text == "aten.div.Tensor (2 times): differs by 0.5\naten.topk.default: k is a <tensor>"
    assert "min_block_size" in segments[4].text
    figure = strip_figure(segments, 1)
    assert figure.count('class="one" style') == 3
    assert figure.count('class="two" style') == 2
    assert "k is a &lt;tensor&gt;" in figure
    assert "3 engines, and 2 times PyTorch" in figure


def test_long_programs_are_cut_in_the_middle_and_say_so() -> None:
    """Sixty parts fit on a phone."""
    segments = [Segment("" if number % 2 else f"engine{number}", "text", 1.0) for number in range(200)]
    figure = strip_figure(segments, 1)
    assert figure.count("<span class=") == 61 + 2  # and the key
    assert "140 parts in the middle are not drawn" in figure
