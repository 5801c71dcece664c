"""What a checkpoint says, without its weights and without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.lightning_models import Data, Regression, trainer

from lightning_trt_windows.checkpoints.metadata import Inert, read_metadata
from lightning_trt_windows.checkpoints.reader import read_checkpoint
from lightning_trt_windows.errors import CheckpointError


class Dangerous:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("unpickled",)


def test_of_a_training(tmp_path: Path) -> None:
    """Epoch, step, hyperparameters and the state of callbacks, as the whole file has them."""
    saver = ModelCheckpoint(tmp_path, filename="a", monitor="val_loss")
    trainer(tmp_path, saver, max_epochs=2).fit(Regression(width=6), datamodule=Data())
    found, whole = read_metadata(tmp_path / "a.ckpt"), read_checkpoint(tmp_path / "a.ckpt")
    assert (found.epoch, found.global_step) == (whole.epoch, whole.global_step)
    assert found.hyperparameters == whole.hyperparameters
    (state,) = [state for key, state in found.callbacks.items() if "ModelCheckpoint" in key]
    assert state["monitor"] == "val_loss"


def test_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Objects stand there without content; nothing that they name is called."""
    torch.save({"state_dict": {}, "hyper_parameters": {"it": Dangerous(), "that": {1, 2}}}, tmp_path / "a.ckpt")
    found = read_metadata(tmp_path / "a.ckpt").hyperparameters["hyper_parameters"]
    assert isinstance(found["it"], Inert)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nothing", None], ids=["empty", "damaged", "missing"])
def test_what_is_none(content: bytes | None, tmp_path: Path) -> None:
    """One kind of error, with the file's name."""
    if content is not None:
        (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        read_metadata(tmp_path / "a.ckpt")


def test_weights_alone_are_none(tmp_path: Path) -> None:
    """A file of PyTorch that is no checkpoint of Lightning."""
    torch.save(Regression().state_dict(), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="expected a dict with a state_dict"):
        read_metadata(tmp_path / "a.ckpt")


def test_without_pytorch(tmp_path: Path) -> None:
    """On a machine that has none."""
    torch.save({"state_dict": Regression().state_dict(), "global_step": 7}, tmp_path / "a.ckpt")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lightning_trt_windows.checkpoints.metadata import read_metadata\n"
        f"print(read_metadata({str(tmp_path / 'a.ckpt')!r}).global_step)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "7\n", done.stderr
