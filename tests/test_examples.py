"""The examples, each run as its first lines say: what they promise to print, and the files they leave."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import REPOSITORY

from lightning_trt_windows.artifact.artifact import check_artifact

EXAMPLES = REPOSITORY / "examples"


def run(directory: Path, *command: str | Path, status: int = 0) -> str:
    """What an example prints, run in ``directory``."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def artifacts(directory: Path) -> list[Path]:
    """Those below ``directory``, each of them whole."""
    return [check_artifact(path).path for path in sorted(directory.rglob("*.windows.ep"))]


def number(pattern: str, text: str) -> float:
    """The number that ``pattern`` finds."""
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


@pytest.mark.examples
def test_segmentation_of_any_size(tmp_path: Path) -> None:
    """It learns, and height and width are free in steps that the net can take."""
    printed = run(tmp_path, EXAMPLES / "segmentation.py")
    assert number(r"IoU (\S+)", printed) > 0.8
    (artifact,) = artifacts(tmp_path)
    (spec,) = check_artifact(artifact).manifest.inputs
    assert spec.min[2:] < (40, 40)
    assert spec.max[2:] > (80, 80)
    assert all(step % 4 == 0 for step in spec.multiple_of[2:])


@pytest.mark.examples
def test_text_of_any_length(tmp_path: Path) -> None:
    """It learns, and ids and mask have one length between them, the one that was said."""
    printed = run(tmp_path, EXAMPLES / "text_classifier.py")
    assert number(r"accuracy (\S+)%", printed) > 90
    (artifact,) = artifacts(tmp_path)
    ids, mask = check_artifact(artifact).manifest.inputs
    assert ids.symbols == mask.symbols
    assert (ids.min, ids.max) == (mask.min, mask.max) == ((1, 4), (16, 64))


@pytest.mark.examples
def test_lightning_cli(tmp_path: Path) -> None:
    """The command in its first lines; what the file says reaches the artifact, and the run's configuration has it."""
    shutil.copytree(EXAMPLES / "cli", tmp_path / "examples" / "cli")
    printed = run(tmp_path, "examples/cli/train.py", "fit", "--config", "examples/cli/config.yaml")
    assert number(r"val_acc (\S+)%", printed) > 85
    (artifact,) = artifacts(tmp_path)
    manifest = check_artifact(artifact).manifest
    assert (manifest.inputs[0].max, len(manifest.extra["classes"])) == ((256, 64), 10)
    assert "windows_export:" in next(tmp_path.rglob("version_0/config.yaml")).read_text(encoding="utf-8")


@pytest.mark.examples
def test_many_checkpoints(tmp_path: Path) -> None:
    """Every checkpoint has its artifact, and none failed."""
    printed = run(tmp_path, EXAMPLES / "many_checkpoints.py", "--epochs", "3")
    assert "3 artifacts and 0 failures" in printed
    assert len(artifacts(tmp_path)) == len(list(tmp_path.rglob("*.ckpt"))) == 3


def test_the_windows_side_says_what_it_lacks(tmp_path: Path) -> None:
    """On a machine without a GPU: what the artifact takes, what is missing, and what to do."""
    import torch
    from torch import nn

    from lightning_trt_windows import DimRange, InputSpec, export_module

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    module, ranges = nn.Linear(4, 2).eval(), {"input": InputSpec((DimRange(1, 8, 32), 4))}
    artifact = export_module(module, ranges, tmp_path / "m.windows.ep")
    printed = run(tmp_path, EXAMPLES / "windows_side.py", artifact.path, status=3)
    assert "input: float32 from [1, 4] to [32, 4], tuned for [8, 4]" in printed
    assert "wanted an NVIDIA driver, found none" in printed
    assert "Copy both files to a PC with an NVIDIA GPU" in printed


def test_every_example_is_run() -> None:
    """By a test here, or by ``make demo``."""
    source = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.rglob("*.py"):
        # those for Windows have tests of their own: test_windows_samples.py
        assert path.name in source or path.name == "digits.py" or path.parent.name == "windows"
