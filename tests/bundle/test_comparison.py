"""Artifacts side by side: what can be compared, a row for each."""

from __future__ import annotations

import itertools
import json
from pathlib import Path, PurePosixPath

from support.artifacts import put

from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.manifest import CheckedSizes, CheckRecord
from lightning_trt_windows.bundle.comparison import side_by_side
from lightning_trt_windows.bundle.gathering import Gathered


def items(folder: Path, errors: list[float | None]) -> list[Gathered]:
    """An artifact for each error."""
    made = []
    for number, error in enumerate(errors):
        check = error is not None and CheckRecord(
            mode="auto",
            compared=(CheckedSizes(name="opt", sizes={}, lowered=0.0, engines=error),),
            not_checked=(),
            left_to_pytorch=(),
        )
        artifact = read_artifact(put(folder, f"a{number}", step=number + 1, check=check or None))
        made.append(Gathered(artifact, PurePosixPath(), number))
    return made


def test_one_artifact_is_not_compared(tmp_path: Path) -> None:
    """There is nothing beside it."""
    assert list(side_by_side(items(tmp_path, [1e-6]), ["a"], itertools.count(1))) == []  # type: ignore[arg-type]


def test_folders_that_all_have_are_left_out(tmp_path: Path) -> None:
    """They say nothing of what is compared; what differs stays."""
    names = ["run/v0/best.windows.ep", "run/v0/last.windows.ep", "run/v0/more/last.windows.ep"]
    page = "".join(side_by_side(items(tmp_path, [1e-6, 1e-6, 1e-6]), names, itertools.count(1)))  # type: ignore[arg-type]
    assert "run/v0" not in page
    assert ">more/last.windows.ep<" in page


def test_each_quantity_that_two_have_is_drawn(tmp_path: Path) -> None:
    """Sizes of all; errors where two were checked; latencies where two were measured."""
    several = items(tmp_path, [1e-6, None, 1e-4])
    names = ["a", "b<", "c"]
    page = "".join(side_by_side(several, names, itertools.count(1)))  # type: ignore[arg-type]
    assert page.count('class="bar grey"') == 3
    assert page.count('class="dot"') == 2
    assert "b&lt;" in page
    assert "Latency" not in page
    for factor, item in zip((1, 4), several, strict=False):
        points = [{"by": "load", "batch": b, "p50": factor * b, "throughput": 1.0} for b in (2, 8)]
        figures = {"sha256": item.manifest.ep.sha256, "device": "some", "points": points}
        item.artifact.paths.bench.write_text(json.dumps(figures))
    page = "".join(side_by_side(several, names, itertools.count(1)))  # type: ignore[arg-type]
    assert "a (some, batch 2)" in page
    assert "width:25.00%" in page
    assert "2 ms" in page
