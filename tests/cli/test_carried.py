"""``inspect CKPT``: the shapes that a checkpoint carries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import CheckpointError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of a training with the callback."""
    folder = tmp_path_factory.mktemp("run")
    export = WindowsExport(preflight=False)
    run = trainer(folder, ModelCheckpoint(folder, filename="a"), export, max_epochs=1)
    run.fit(Regression(), datamodule=Data())
    return folder / "a.ckpt"


def test_for_people(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it stands in training, the ranges, and why they are what they are."""
    assert main(["inspect", str(checkpoint)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a.ckpt" in said
    assert "step 5" in said
    assert "[1..8, 4]" in said
    assert "calls of forward:" in said
    assert "always 4" in said


def test_for_scripts(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as JSON."""
    assert main(["inspect", "--json", str(checkpoint)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["checkpoint"], said["epoch"], said["global_step"]) == ("a.ckpt", 0, 5)
    (entry,) = said["shapes"]["ranges"]
    assert (entry["name"], entry["min"], entry["max"]) == ("x", [1, 4], [8, 4])


def test_export_needs_nothing_else(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither --input nor --datamodule."""
    module = "support.lightning_models:Regression"
    assert main(["export", str(checkpoint), "--module", module, "--output", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / "a.windows.ep").exists()
    assert "by the training that wrote a.ckpt" in capsys.readouterr().out


def test_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is to be done is said."""
    torch.save({"state_dict": {}, "epoch": 1, "global_step": 7}, tmp_path / "b.ckpt")
    assert main(["inspect", str(tmp_path / "b.ckpt")]) == 0
    assert "needs --input or --datamodule" in " ".join(capsys.readouterr().out.split())


def test_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code of its kind of error."""
    (tmp_path / "b.ckpt").write_bytes(b"nothing")
    assert main(["inspect", str(tmp_path / "b.ckpt")]) == CheckpointError.exit_code
    state = {"format": 1, "ranges": [{"name": "x"}]}
    torch.save({"state_dict": {}, "callbacks": {"WindowsExport": state}}, tmp_path / "b.ckpt")
    assert main(["inspect", str(tmp_path / "b.ckpt")]) == CheckpointError.exit_code
    assert "has damaged shapes" in capsys.readouterr().err
