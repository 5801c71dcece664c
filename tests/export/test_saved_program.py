"""Programs whose arguments and outputs are of the user's own classes, where those classes are not."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.export.job import Job
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.export.saved_program import load_program, save_program


@dataclass
class Sample:
    """With a field that may be ``None``."""

    image: Tensor
    mask: Any = None


class Pair(NamedTuple):
    """Saved in another way than the others."""

    first: Tensor
    second: Tensor


@attrs.define
class Boxes:
    """With a number beside the tensors."""

    corners: Tensor
    count: int = 3


class Model(nn.Module):
    """Takes and returns all of them."""

    def forward(self, sample: Sample, pair: Pair) -> dict[str, Any]:
        y = sample.image + pair.first
        return {"sample": Sample(y), "boxes": [Boxes(y + 1)], "out": (Pair(y, pair.second), BaseModelOutput(y * 2))}


SPEC = InputSpec((DimRange(1, 2, 4), 4))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A build of the model."""
    found = discover(Model(), inputs={"sample": Sample(SPEC), "pair": Pair(SPEC, SPEC)})  # type: ignore[arg-type]
    return prepare(Model(), found, ArtifactPaths.of(tmp_path / "m.windows.ep"), ExportOptions())


def trees(path: Path) -> tuple[str, str, Any]:
    """What a saved program says of its arguments and outputs."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/models/model.json")]
        graph = json.loads(archive.read(name))["graph_module"]
    signature = graph["module_call_graph"][0]["signature"]
    return signature["in_spec"], signature["out_spec"], graph["treespec_namedtuple_fields"]


def elsewhere(code: str, folder: Path) -> None:
    """Run ``code`` in a process that has no user code, neither imported nor on its path."""
    head = "import pickle, sys; from lightning_trt_windows.export.saved_program import *; import torch\n"
    check = "\nassert not {'test_travelling', 'transformers', 'attrs'} & set(sys.modules)"
    command = [sys.executable, "-c", head + textwrap.dedent(code) + check]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_process_without_the_classes_keeps_what_is_said_of_them(job: Job, tmp_path: Path) -> None:
    """A pickled job and a saved program: loaded, lowered, saved, and still the same to those who have the classes."""
    saved = job.saved(tmp_path / "program.pt2")
    (tmp_path / "jobs.pickle").write_bytes(pickle.dumps((job, saved)))
    elsewhere(
        """
        for number, job in enumerate(pickle.load(open("jobs.pickle", "rb"))):
            program, _ = job.load()
            save_program(program.run_decompositions(), f"{number}.pt2")
        """,
        tmp_path,
    )
    pair = Pair(torch.ones(2, 4), torch.zeros(2, 4))
    for number in range(2):
        path = tmp_path / f"{number}.pt2"
        assert trees(path) == trees(tmp_path / "program.pt2")
        result = load_program(path).module()({"image": torch.ones(2, 4)}, pair)
        assert isinstance(result["sample"], Sample)
        assert isinstance(result["out"][1], BaseModelOutput)
        assert result["boxes"][0].count == 3
        assert torch.equal(result["out"][0].first, torch.full((2, 4), 2.0))


def test_examples_stay_at_home(job: Job, tmp_path: Path) -> None:
    """They are instances of the user's classes, pickled; the program in memory keeps them."""
    before = job.program.example_inputs  # type: ignore[union-attr]  # not saved yet
    job.saved(tmp_path / "program.pt2")
    assert before is not None
    assert job.program.example_inputs is before  # type: ignore[union-attr]
    assert b"test_travelling" not in zipfile.ZipFile(tmp_path / "program.pt2").read(
        "program/data/sample_inputs/model.pt"
    )


def test_without_stand_ins_such_a_program_cannot_be_read(job: Job, tmp_path: Path) -> None:
    """What they are for is still true of this PyTorch."""
    job.saved(tmp_path / "program.pt2")
    with pytest.raises(AssertionError, match="deserializing"):
        elsewhere("torch.export.load('program.pt2')", tmp_path)


def test_dimensions_of_multiples_travel(tmp_path: Path) -> None:
    """A program that takes heights of 8, 16, 24, ... can be lowered where it arrives."""
    multiples = {"input": {0: 8 * torch.export.Dim("d", min=1, max=4)}}
    program = torch.export.export(nn.ReLU(), (torch.rand(16, 3),), dynamic_shapes=multiples, strict=False)
    save_program(program, tmp_path / "program.pt2")
    lowered = load_program(tmp_path / "program.pt2").run_decompositions()
    assert lowered.module()(torch.rand(24, 3)).shape == (24, 3)


def test_what_pytorch_says_of_the_file_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.11 warns that the bytes of the archive cannot be written to, once in each process that builds."""
    program = torch.export.export(nn.ReLU(), (torch.rand(2),), strict=False)
    save_program(program, tmp_path / "program.pt2")
    load = torch.export.load

    def loaded(file: Path) -> torch.export.ExportedProgram:
        warnings.warn("The given buffer is not writable", UserWarning, stacklevel=1)
        return load(file)

    monkeypatch.setattr(torch.export, "load", loaded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_program(tmp_path / "program.pt2")
