"""One artifact on the page: what was checked, what stays in PyTorch and why, how fast it is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from support.artifacts import put

from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.manifest import CheckedSizes, CheckRecord, LeftToPyTorch
from lightning_trt_windows.bundle.article import article

CHECK = CheckRecord(
    mode="auto",
    compared=(
        CheckedSizes(name="min", sizes={"batch": 1}, lowered=1e-7, engines=2e-7),
        CheckedSizes(name="max", sizes={"batch": 8}, lowered=3e-6, engines=1e-6),
    ),
    not_checked=("the size between would take about 20 s",),
    left_to_pytorch=(LeftToPyTorch(operator="aten.div.Tensor", line="model.py:7 <x>", reason="differs by 0.5"),),
)


def html(path: Path, number: int = 0) -> str:
    """The article of an artifact."""
    return article(read_artifact(path), "a.windows.ep", ("last",), number, itertools.count(1))  # type: ignore[arg-type]


def test_numbers_checked_at_the_export(tmp_path: Path) -> None:
    """A dot for each size, the larger of its two errors; what was left out, and what stays in PyTorch with its line."""
    page = html(put(tmp_path, check=CHECK))
    assert page.count('class="dot"') == 2
    assert "min (batch 1): relative error 2e-07" in page
    assert "max (batch 8): relative error 3e-06" in page
    assert "the size between would take about 20 s" in page
    assert "model.py:7 &lt;x&gt;" in page
    assert "differs by 0.5" in page


def test_without_a_check(tmp_path: Path) -> None:
    """It says so."""
    assert "Not compared with the module while it was exported." in html(put(tmp_path))


def test_figures_of_a_bench(tmp_path: Path) -> None:
    """Two charts, of this file's figures only."""
    artifact = read_artifact(put(tmp_path))
    assert "How fast" not in html(artifact.path)
    points = [
        {"by": by, "batch": b, "p50": 0.5 * b, "throughput": 2000.0} for by in ("load", "eager") for b in (1, 2, 4)
    ]
    figures = {"sha256": artifact.manifest.ep.sha256, "device": "RTX <4090>", "points": points}
    artifact.paths.bench.write_text(json.dumps(figures))
    page = html(artifact.path)
    assert "on RTX &lt;4090&gt;." in page
    assert page.count('class="one-dot"') == page.count('class="two-dot"') == 6


def test_the_first_is_open(tmp_path: Path) -> None:
    """The others unfold on a click."""
    path = put(tmp_path)
    assert "<details open>" in html(path)
    assert "<details open>" not in html(path, 1)
