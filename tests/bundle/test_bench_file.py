"""Figures of ``bench`` that the report draws: those of this very file, and only what is a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.artifacts import put

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.bundle.bench_file import read_bench


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """An artifact without figures."""
    return read_artifact(put(tmp_path))


def write(artifact: Artifact, points: Any, **others: Any) -> None:
    """Figures beside it."""
    content = {"sha256": artifact.manifest.ep.sha256, "device": "RTX 4090", "points": points, **others}
    artifact.paths.bench.write_text(json.dumps(content))


def test_figures(artifact: Artifact) -> None:
    """By who ran it, over the batch."""
    assert read_bench(artifact) is None
    points = [{"by": "load", "batch": b, "p50": 0.5 * b, "throughput": 2000.0} for b in (1, 2)]
    write(artifact, [*points, {"by": "eager", "batch": 1, "p50": 3, "throughput": 333}], versions={"torch": "2.14"})
    found = read_bench(artifact)
    assert found is not None
    assert found.latency == {"load": {1: 0.5, 2: 1.0}, "eager": {1: 3}}
    assert found.throughput["load"] == {1: 2000.0, 2: 2000.0}
    assert (found.device, found.versions) == ("RTX 4090", "torch 2.14")


def test_of_another_file(artifact: Artifact) -> None:
    """Exported anew, it may be faster or slower."""
    write(artifact, [{"by": "load", "batch": 1, "p50": 1.0, "throughput": 1.0}], sha256="0" * 64)
    assert read_bench(artifact) is None


@pytest.mark.parametrize(
    "points",
    [
        None, 3, [], [3], [{}], [{"by": 3, "batch": 1, "p50": 1.0}], [{"by": "load", "batch": "1", "p50": 1.0}],
        [{"by": "load", "batch": True, "p50": 1.0}], [{"by": "load", "batch": 1, "p50": float("nan")}],
        [{"by": "load", "batch": 0, "p50": 1.0}], [{"by": "load", "batch": 1, "p50": 1e300}],
    ],
)  # fmt: skip
def test_what_is_no_figure(artifact: Artifact, points: Any) -> None:
    """Is not drawn."""
    write(artifact, points)
    assert read_bench(artifact) is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[]", b"{}"])
def test_what_is_no_json(artifact: Artifact, content: bytes) -> None:
    """Nor raises."""
    artifact.paths.bench.write_bytes(content)
    assert read_bench(artifact) is None
