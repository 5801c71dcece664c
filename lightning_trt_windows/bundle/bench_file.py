"""Figures of ``bench`` beside an artifact, as the report draws them. Standard library only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact

__all__ = ["BenchFigures", "read_bench"]

_LARGEST = 1 << 20
"""Bytes; figures of a hundred batches have some KiB."""


@dataclass(frozen=True)
class BenchFigures:
    """Latency and throughput of an artifact on one machine."""

    device: str
    """Name of the GPU."""
    versions: str
    latency: Mapping[str, Mapping[float, float]]
    """Median in milliseconds by batch, by who ran it: ``load``, ``eager``, ``onnxruntime``."""
    throughput: Mapping[str, Mapping[float, float]]
    """Samples a second, likewise."""


def read_bench(artifact: Artifact) -> BenchFigures | None:
    """The figures beside ``artifact``; ``None`` where there are none, or none of this very ``.ep``.

    The file is nobody's promise: what does not look like figures is left out rather than drawn.
    """
    try:
        with artifact.paths.bench.open("rb") as file:
            found = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("sha256") != artifact.manifest.ep.sha256:
        return None
    points = found.get("points")
    latency: dict[str, dict[float, float]] = {}
    throughput: dict[str, dict[float, float]] = {}
    for point in points if isinstance(points, list) else ():
        if isinstance(point, dict) and isinstance(point.get("by"), str):
            batch = _number(point.get("batch"))
            for kept, key in ((latency, "p50"), (throughput, "throughput")):
                value = _number(point.get(key))
                if batch is not None and value is not None:
                    kept.setdefault(point["by"], {})[batch] = value
    versions = found.get("versions")
    said = ", ".join(f"{key} {value}" for key, value in versions.items()) if isinstance(versions, dict) else ""
    return BenchFigures(str(found.get("device", "")), said, latency, throughput) if latency else None


def _number(value: Any) -> float | None:
    """A number above zero, which can be drawn."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e15 and math.isfinite(value) else None
