"""Large engines on their way to the disk."""

from __future__ import annotations

import gc
import mmap
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.artifact.artifact import Artifact, check_artifact
from lightning_trt_windows.backends import engine as engine_module
from lightning_trt_windows.backends import plan_file
from lightning_trt_windows.errors import OutputError
from lightning_trt_windows.export import pipeline

_TEMPORARY_FILE = tempfile.TemporaryFile
INPUTS = {"input": InputSpec((DimRange(1, 2, 8), 16))}


def exported(path: Path) -> Artifact:
    """A small net, with the same weights each time."""
    torch.manual_seed(0)
    return export_module(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval(), INPUTS, path)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[memoryview]:
    """What engines are built into."""
    seen: list[memoryview] = []
    real = plan_file.serialized

    def serialized(*arguments: Any) -> memoryview | None:
        plan = real(*arguments)
        assert plan is not None
        seen.append(plan)
        return plan

    monkeypatch.setattr(engine_module, "serialized", serialized)
    return seen


def test_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plans: list[memoryview]) -> None:
    """Through a file, which has no name and leaves nothing; small ones stay in memory."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    in_memory = exported(tmp_path / "a" / "m.windows.ep")
    monkeypatch.setattr(plan_file, "LARGE", 1)
    in_file = exported(tmp_path / "b" / "m.windows.ep")
    assert [isinstance(plan.obj, mmap.mmap) for plan in plans] == [False, True]
    assert [e.sha256 for e in in_file.manifest.engines] == [e.sha256 for e in in_memory.manifest.engines]
    check_artifact(in_file)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {path.name for path in (tmp_path / "a").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="a disk that is always full")
@pytest.mark.parametrize("late", [False, True], ids=["at once", "when it is flushed"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """The reason is the disk's, and no exception passes through TensorRT."""
    monkeypatch.setattr(plan_file, "LARGE", 1)
    full = lambda **_: _Late() if late else open("/dev/full", "w+b", buffering=0)  # noqa: E731, SIM115, PTH123
    monkeypatch.setattr(plan_file.tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match="no space left on the device"):
        exported(tmp_path / "m.windows.ep")
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.ep"))


class _Late:
    """A file whose disk is found to be full at the end."""

    def __init__(self) -> None:
        self._file = _TEMPORARY_FILE()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
            full.write(b"x")


def test_weights_go_when_they_are_in_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the artifact is written nobody holds the weights of a module that its owner has let go."""
    monkeypatch.setattr(pipeline, "LARGE", 1)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    weights = weakref.ref(module[0].weight)
    held: list[bool] = []
    real = pipeline._written

    def written(*arguments: Any) -> Artifact:
        held.append(weights() is not None)
        return real(*arguments)

    monkeypatch.setattr(pipeline, "_written", written)
    modules = [module]
    del module
    discovered = pipeline.ExportOptions.of({"inputs": INPUTS})
    found = discovered.discover(modules[0])
    paths = pipeline.ArtifactPaths.of(tmp_path / "m.windows.ep")
    pipeline.build(pipeline.prepare(modules.pop(), found, paths, discovered))
    gc.collect()
    assert held == [False]
