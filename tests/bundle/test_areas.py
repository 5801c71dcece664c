"""Sizes in two dimensions: which inputs have them, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

from lightning_trt_windows.artifact.manifest import InputRecord, Source
from lightning_trt_windows.bundle.areas import area_figure, area_of

RECORD = InputRecord(
    name="x<y>",
    dtype="float32",
    min=(1, 3, 24, 24),
    opt=(4, 3, 56, 64),
    max=(8, 3, 104, 96),
    symbols=("batch", None, "height", "width"),
    source=Source(kind="observed", reason="", shapes={"4x3x40x48": 3, "2x3x40x48": 2, "4x3x200x48": 1}),
)


def test_pairs_of_the_last_two_axes() -> None:
    """Of all batches together."""
    area = area_of(RECORD)
    assert area is not None
    assert (area.names, area.low, area.opt, area.high) == (("height", "width"), (24, 24), (56, 64), (104, 96))
    assert area.seen == {(40, 48): 5, (200, 48): 1}


def test_inputs_without_two_such_axes_have_none() -> None:
    """One axis is fixed, both are the same, nothing was recorded, or there is one axis only."""
    for symbols in (("batch", None, None, "width"), ("batch", None, "side", "side")):
        assert area_of(replace(RECORD, symbols=symbols)) is None
    assert area_of(replace(RECORD, source=Source(kind="argument", reason=""))) is None
    assert area_of(replace(RECORD, symbols=("batch",))) is None


def test_what_is_outside_is_marked_and_said() -> None:
    """In words, too; names are escaped."""
    area = area_of(RECORD)
    assert area is not None
    figure = area_figure(area, 3, RECORD.name)
    assert figure.count('class="seen-dot"') == figure.count('class="outside"') == 1
    assert "2 shapes seen, 1 of them outside the range" in figure
    assert "x&lt;y&gt;" in figure
    same = area_figure(replace(area, low=(40, 48), opt=(40, 48), high=(40, 48), seen={(40, 48): 1}), 1, "x")
    assert "nan" not in same.lower()
