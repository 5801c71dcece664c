"""``*args`` and ``**kwargs`` in the program that is written: whoever loads it hands over what ``forward`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.ep_file import EpFile
from lightning_trt_windows.runtime.loaded import LoadedModule, assemble
from lightning_trt_windows.runtime.program_reader import read_program
from lightning_trt_windows.verification.structure import structure_issues

SPEC = InputSpec((DimRange(1, 4, 4, name="batch"), 4))


def loaded(artifact: Artifact) -> LoadedModule:
    """What ``load`` makes of it, without a GPU: no engine runs."""
    cpu = torch.device("cpu")
    with EpFile(artifact.path) as file:
        engines: list[Any] = [lambda *given: given] * len(artifact.manifest.engines)
        return assemble(artifact, read_program(artifact, file, cpu), engines, cpu)


def test_keyword_arguments(tmp_path: Path) -> None:
    """As Lightning's tutorial on GLUE has it: ``forward(**inputs)``."""

    class Net(nn.Module):
        def forward(self, **inputs: Tensor) -> Tensor:
            return inputs["x"] * 2 + inputs["z"]

    artifact = export_module(Net(), {"x": SPEC, "z": SPEC}, tmp_path / "m.windows.ep")
    assert [record.name for record in artifact.manifest.inputs] == ["x", "z"]
    assert list(structure_issues(artifact)) == []
    module = loaded(artifact)
    assert module.argument_names == ("x", "z")
    one = torch.ones(1, 4)
    assert [t[0, 0].item() for t in module._structure.flatten((), {"z": one * 2, "x": one})] == [1, 2]


def test_positional_arguments(tmp_path: Path) -> None:
    """Two lists of views, in their order."""

    class Net(nn.Module):
        def forward(self, *views: list[Tensor]) -> Tensor:
            (a0, a1), (b0, b1) = views
            return a0 + 2 * a1 + 3 * b0 + 4 * b1

    artifact = export_module(Net(), {"views": ([SPEC, SPEC], [SPEC, SPEC])}, tmp_path / "m.windows.ep")
    assert list(structure_issues(artifact)) == []
    module = loaded(artifact)
    assert module.argument_names == ("views_0", "views_1")
    t = [torch.full((1, 4), float(i)) for i in range(4)]
    assert [x[0, 0].item() for x in module._structure.flatten(([t[0], t[1]], [t[2], t[3]]), {})] == [0, 1, 2, 3]
