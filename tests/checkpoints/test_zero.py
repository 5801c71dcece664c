"""Directories that DeepSpeed wrote, recorded from trainings of two processes (``tests/data/make_deepspeed.py``)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.deepspeed_training import Parts
from support.lightning_models import Data
from support.paths import DATA

from lightning_trt_windows import export_checkpoint
from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.checkpoints.consolidate import one_file
from lightning_trt_windows.checkpoints.metadata import SHAPES, read_metadata
from lightning_trt_windows.checkpoints.reader import is_sharded, last_written
from lightning_trt_windows.checkpoints.zero import parts_of
from lightning_trt_windows.errors import CheckpointError, EnvironmentMismatchError

HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
NEEDED = pytest.mark.skipif(not HAS_DEEPSPEED, reason="deepspeed puts the parts together")
ALL = ["stage1", pytest.param("stage3", marks=NEEDED), pytest.param("stage3_bf16", marks=NEEDED)]
"""Under ZeRO 1 the first process has the whole module in float32, and nothing has to be put together."""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder for each recording, with ``a.ckpt`` and the weights that the module had: ``live.pt``."""
    with zipfile.ZipFile(DATA / "deepspeed.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def read(path: Path) -> Any:
    """What a file holds, without running any code."""
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", ALL)
def test_one_file(recorded: Path, name: str) -> None:
    """The module's weights bit for bit in float32, and what Lightning and the callback have put in."""
    directory = recorded / name / "a.ckpt"
    assert is_sharded(directory)
    assert parts_of(directory) == directory / "checkpoint"
    whole = one_file(directory, trusted=True)
    assert whole == recorded / name / "a-consolidated.ckpt"
    content, live = read(whole), read(recorded / name / "live.pt")
    state = content["state_dict"]
    module = Parts(**content["hyper_parameters"])
    module.configure_model()
    assert state.keys() == module.state_dict().keys()
    assert live.keys() == dict(module.named_parameters()).keys()
    for key, value in live.items():
        assert state[key].dtype is torch.float32
        assert torch.equal(state[key].to(value.dtype), value), key
    if name == "stage3_bf16":
        assert any(not torch.equal(state[key].bfloat16().float(), state[key]) for key in live), "of the optimizer"
    assert state["tied.weight"].data_ptr() == state["net.0.weight"].data_ptr()
    assert torch.equal(state["scale"], module.scale)
    assert state["count"].tolist() == [0, 1, 2]
    assert set(content) >= {"epoch", "global_step", "loops", "hyper_parameters", "pytorch-lightning_version"}
    assert "ds_config" not in content
    metadata = read_metadata(whole)
    assert metadata.global_step == 6
    (shapes,) = [entry for entry in metadata.callbacks[SHAPES]["ranges"] if entry["name"] == "x"]
    assert (shapes["dtype"], shapes["max"]) == ("float32", [8, 4])


@pytest.mark.parametrize("name", ALL)
def test_export(recorded: Path, name: str) -> None:
    """Without data: the shapes are those that the training has seen."""
    artifact = export_checkpoint(recorded / name / "a.ckpt", Parts, trust_checkpoint=True)
    assert artifact.path.name == "a-consolidated.windows.ep"
    record = check_artifact(artifact).manifest.checkpoint
    assert record is not None
    assert record.global_step == 6


def test_made_once(recorded: Path) -> None:
    """And anew when the directory has been written again."""
    directory = recorded / "stage1" / "a.ckpt"
    whole = one_file(directory, trusted=True)
    os.utime(whole, ns=(1, whole.stat().st_mtime_ns + 1))
    made = whole.stat().st_mtime_ns
    assert one_file(directory, trusted=True).stat().st_mtime_ns == made
    later = made + 1
    index = last_written(directory)
    assert index is not None
    os.utime(index, ns=(later, later))
    assert one_file(directory, trusted=True).stat().st_mtime_ns != made


def test_not_trusted(recorded: Path) -> None:
    """Nothing is read, and the message says how to allow it."""
    directory = recorded / "stage1" / "a.ckpt"
    assert one_file(directory, trusted=False) == directory
    with pytest.raises(CheckpointError, match=r"that DeepSpeed wrote(.|\n)*--trust-checkpoint"):
        export_checkpoint(directory, Parts, Data())
    assert not directory.with_name("a-consolidated.ckpt").exists()


def test_without_deepspeed(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where parts have to be put together the message has the line that installs it, and nothing half is left."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(EnvironmentMismatchError, match="pip install deepspeed"):
        one_file(recorded / "stage3" / "a.ckpt", trusted=True)
    assert sorted(path.name for path in (recorded / "stage3").iterdir()) == ["a.ckpt", "live.pt"]
    assert one_file(recorded / "stage1" / "a.ckpt", trusted=True).is_file()


@NEEDED
def test_a_part_is_missing(recorded: Path) -> None:
    """What DeepSpeed says is in the message."""
    directory = recorded / "stage3" / "a.ckpt"
    (directory / "checkpoint" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointError, match=r"cannot put the parts in .*Expected 2 of"):
        one_file(directory, trusted=True)
    (directory / "checkpoint" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointError, match="no part of any optimizer"):
        one_file(directory, trusted=True)
    (directory / "checkpoint" / "zero_pp_rank_0_mp_rank_00_model_states.pt").unlink()
    with pytest.raises(CheckpointError, match="no file of the first process"):
        one_file(directory, trusted=True)


def test_damaged(recorded: Path) -> None:
    """The message names the part."""
    part = recorded / "stage1" / "a.ckpt" / "checkpoint" / "mp_rank_00_model_states.pt"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"mp_rank_00_model_states\.pt cannot be read"):
        one_file(recorded / "stage1" / "a.ckpt", trusted=True)
    torch.save({"module": {"a": torch.ones(1)}}, part)
    with pytest.raises(CheckpointError, match="not of a Lightning training"):
        one_file(recorded / "stage1" / "a.ckpt", trusted=True)
    torch.save([1], part)
    with pytest.raises(CheckpointError, match="expected a dict"):
        one_file(recorded / "stage1" / "a.ckpt", trusted=True)


def test_other_parallelism(recorded: Path) -> None:
    """Parts of tensors and experts are refused: without them weights would be missing, or of another shape."""
    folder = recorded / "stage1" / "a.ckpt" / "checkpoint"
    shutil.copy(folder / "mp_rank_00_model_states.pt", folder / "mp_rank_01_model_states.pt")
    with pytest.raises(CheckpointError, match="tensor parallelism"):
        one_file(recorded / "stage1" / "a.ckpt", trusted=True)


@pytest.mark.parametrize("text", ["", "../a", "elsewhere", "checkpoint/", "\0", "checkpoint\n../b"])
def test_no_directory_of_deepspeed(recorded: Path, text: str) -> None:
    """What ``latest`` names must be a folder inside, with parts."""
    directory = recorded / "stage1" / "a.ckpt"
    (directory / "latest").write_text(text)
    assert parts_of(directory) is None
    assert not is_sharded(directory)
    (directory / "latest").write_bytes(b"\xff\xfe")
    assert parts_of(directory) is None
