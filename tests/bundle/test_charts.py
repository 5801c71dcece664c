"""Charts of the report: where dots and lines stand, and what is said of them."""

from __future__ import annotations

import re
from itertools import pairwise

from lightning_trt_windows.bundle.charts import Error, Line, error_figure, line_figure


def positions(figure: str, kind: str) -> list[tuple[float, float]]:
    """Percent across and pixels down of the dots of a class."""
    found = re.findall(rf'<circle class="{kind}" cx="([\d.]+)%" cy="([\d.]+)"', figure)
    return [(float(x), float(y)) for x, y in found]


def test_errors_on_a_logarithmic_scale() -> None:
    """The same distance for the same factor; exact and tiny ones at the left end, also zero."""
    errors = [Error("a", 1e-6), Error("b", 1e-4), Error("c", 1e-2), Error("exact", 0.0), Error("tiny", 1e-30)]
    dots = positions(error_figure("x", errors, 1), "dot")
    across = [x for x, _ in dots]
    assert abs((across[1] - across[0]) - (across[2] - across[1])) < 0.02
    assert across[3] == across[4] == min(across)
    assert [y for _, y in dots] == sorted({y for _, y in dots}), "each has a row of its own"


def test_what_is_beyond_the_tolerance_is_marked() -> None:
    """Infinity and NaN, too, inside of the drawing."""
    errors = [
        Error("good", 1e-5, 1e-3), Error("bad", 1e-2, 1e-3), Error("lost", float("inf"), 1e-3),
        Error("none", float("nan"), 1e-3),
    ]  # fmt: skip
    figure = error_figure("x", errors, 1)
    assert len(positions(figure, "dot")) == 1
    bad = positions(figure, "outside")
    assert len(bad) == 3
    assert all(0 <= x <= 100 for x, _ in bad)
    assert figure.count('class="allowed"') == 4
    assert "bad: relative error 0.01, allowed 0.001" in figure


def test_lines() -> None:
    """Batches double from tick to tick, greater is higher, latencies begin at zero."""
    figure = line_figure(
        "Latency", [Line("load", {1: 1.0, 2: 2.0, 4: 4.0, 8: 4.0})], 1, across="batch", unit="ms", logarithmic=True
    )
    dots = positions(figure, "one-dot")
    steps = [round(b[0] - a[0], 1) for a, b in pairwise(dots)]
    assert len(set(steps)) == 1
    assert dots[0][1] > dots[1][1] > dots[2][1] == dots[3][1]
    assert ">0</text>" in figure
    assert "load: 2 ms at batch 2" in figure


def test_one_point_and_equal_values() -> None:
    """Nothing to divide by."""
    for points in ({3.0: 5.0}, {1.0: 5.0, 2.0: 5.0}, {1.0: 0.0, 2.0: 0.0}, {1.0: -2.0, 2.0: -1.0}):
        figure = line_figure("x", [Line("a", points)], 1, across="step", unit="", logarithmic=False)
        assert len(positions(figure, "one-dot")) == len(points)
        assert "nan" not in figure


def test_names_are_escaped() -> None:
    """They come from files."""
    figure = error_figure("x", [Error("<script>", 1e-3)], 1)
    figure += line_figure("x", [Line("<script>", {1: 1.0})], 2, across="batch", unit="ms", logarithmic=True)
    assert "<script>" not in figure
