"""Copies of the frozen artifact under other names and of other steps."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

from lightning_trt_windows.artifact.artifact import ArtifactPaths, read_artifact, write_manifest
from lightning_trt_windows.artifact.manifest import CheckpointRecord, FileRecord, Score
from support.paths import DATA

__all__ = ["put"]


def put(
    folder: Path,
    name: str = "tiny",
    *,
    step: int | None = 1,
    score: float | None = None,
    monitor: str = "val_acc",
    mode: str = "max",
    versions: dict[str, str] | None = None,
    golden: bytes | None = None,
    **changes: object,
) -> Path:
    """A copy of the real sample under another name, of another step; gives back the ``.ep``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = ArtifactPaths.of(folder / f"{name}.windows.ep")
    shutil.copy(DATA / "tiny.windows.ep", paths.ep)
    full = read_artifact(DATA / "tiny.windows.ep").manifest
    scores = () if score is None else (Score(monitor=monitor, mode=mode, value=score),)  # type: ignore[arg-type]
    checkpoint = CheckpointRecord(file=f"{name}.ckpt", sha256="c" * 64, epoch=0, global_step=step, scores=scores)
    if golden is not None:
        paths.golden.write_bytes(golden)
        changes["golden"] = FileRecord(
            file=paths.golden.name, size=len(golden), sha256=hashlib.sha256(golden).hexdigest()
        )
    manifest = dataclasses.replace(
        full,
        checkpoint=None if step is None else checkpoint,
        ep=dataclasses.replace(full.ep, file=paths.ep.name),
        versions={**full.versions, "torch": "2.14.1+cu130", "tensorrt-rtx": "1.6.1.120", **(versions or {})},
        **changes,  # type: ignore[arg-type]
    )
    write_manifest(paths.manifest, manifest)
    return paths.ep
