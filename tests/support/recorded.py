"""Artifacts that the Linux half built, for tests that run on Windows, where nothing builds engines.

With the environment variable ``RECORDED_ARTIFACTS`` set, tests on Linux leave what they export in the folder that it
names, with the graphs that the engines were built from and the module's weights; the same tests on Windows take it from
there in place of an export. Without the variable tests on Linux export as ever, and on Windows those tests are skipped.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact

__all__ = ["VARIABLE", "keep", "key_of_caller", "take"]

VARIABLE = "RECORDED_ARTIFACTS"
HELPERS = ("recorded.py", "stand_in.py")


def key_of_caller(path: Path) -> str:
    """What one export is called: file and function of the test or fixture, its parameters, and the artifact's name."""
    frame = inspect.currentframe()
    while frame is not None and Path(frame.f_code.co_filename).name in HELPERS:
        frame = frame.f_back
    assert frame is not None
    file, function = Path(frame.f_code.co_filename).stem, frame.f_code.co_name
    # a fixture makes the same for every test, a test something of its own for each of its parameters
    parameters = (
        re.search(r"\[.*\]", os.environ.get("PYTEST_CURRENT_TEST", "")) if function.startswith("test_") else None
    )
    return re.sub(r"[^\w.-]+", "_", f"{file}.{function}{parameters[0] if parameters else ''}.{path.name}")


def keep(key: str, artifact: Artifact, module: nn.Module, partitions: dict[str, torch.fx.GraphModule]) -> None:
    """On Linux, leave copies of an artifact's files in the folder of the variable, if it is set."""
    if VARIABLE not in os.environ:
        return
    place = Path(os.environ[VARIABLE], key)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    stem = artifact.path.name.removesuffix(".ep")
    for file in artifact.path.parent.iterdir():
        if file.is_file() and file.name.startswith(f"{stem}."):
            shutil.copyfile(file, place / file.name)
    torch.save({"weights": module.state_dict(), "partitions": partitions}, place / "recorded.pt")


def take(key: str, module: nn.Module, path: Path) -> tuple[Artifact, dict[str, Any]] | None:
    """On Windows, the artifact that Linux built, copied to ``path``, and its partitions; ``module`` gets the weights.

    Returns:
        ``None`` on Linux, where the caller exports.
    """
    if sys.platform != "win32":
        return None
    if VARIABLE not in os.environ:
        pytest.skip(f"artifacts come from the Linux half: {VARIABLE} names no folder")
    place = Path(os.environ[VARIABLE], key)
    for file in place.iterdir():  # one that is missing is a fault of the run, not a reason to skip
        if file.name != "recorded.pt":
            shutil.copyfile(file, path.with_name(file.name))
    recorded = torch.load(place / "recorded.pt", weights_only=False)  # this project's own
    module.load_state_dict(recorded["weights"])
    return read_artifact(path), recorded["partitions"]
