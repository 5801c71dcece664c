"""Torch-TensorRT-RTX beside a PyTorch for CPUs only.

The column ``cpu`` of the matrix (``nox -s cpu``) has such a build and runs everything on it. Elsewhere the same path is
walked with the CUDA build, told that it is none: its libraries are hidden all the same.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_trt_windows._compat import cpu_build
from lightning_trt_windows._compat.torch_tensorrt import upstream
from lightning_trt_windows._compat.versions import minor
from lightning_trt_windows.errors import EnvironmentMismatchError

TAKES_CPU_BUILDS = minor(torch.__version__) >= minor(cpu_build.PYTHON_RUNTIME_SINCE)

EXPORT = """
import sys
import torch
if sys.argv[1] == "hidden":
    torch.version.cuda = None
from lightning_trt_windows import DimRange, InputSpec, export_module
torch.manual_seed(0)
class Module(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.linalg.svdvals(x.unsqueeze(-1))
artifact = export_module(Module(4, 4), {"x": InputSpec((DimRange(1, 4, 16), 4))}, sys.argv[2])
libraries = [name for name in open("/proc/self/maps").read().split() if "libtorchtrt" in name]
print(bool(libraries), [engine.sha256 for engine in artifact.manifest.engines], artifact.manifest.fallback_ops)
"""


@pytest.mark.skipif(not cpu_build.is_cpu_build(), reason="PyTorch is a CUDA build here: the column `cpu` runs this")
def test_import_still_fails_beside_a_cpu_build() -> None:
    """Without the workaround the import fails, even where nobody asks for a GPU."""
    code = """
from lightning_trt_windows._compat.no_gpu import no_gpu_needed
with no_gpu_needed():
    import torch_tensorrt
    import torch
    torch.ops.tensorrt.no_op_placeholder_for_execute_engine.default
"""
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert plain.returncode != 0, "delete cpu_build: torch_tensorrt imports beside a CPU-only PyTorch"
    assert upstream().version


@pytest.mark.skipif(not TAKES_CPU_BUILDS, reason="Torch-TensorRT needs its libraries before 2.13")
def test_operator_is_declared_as_upstream_declares_it() -> None:
    """Name, types and order of the arguments, which are in every file; from upstream's own where its library has it."""
    blocks = upstream()
    declared = str(blocks.no_op._schema).removeprefix("tensorrt::")
    assert cpu_build.schema(blocks.layout) == declared
    assert len(blocks.no_op._schema.arguments) == blocks.layout.SERIALIZATION_LEN + 1


@pytest.mark.skipif(not TAKES_CPU_BUILDS, reason="Torch-TensorRT needs its libraries before 2.13")
@pytest.mark.skipif(cpu_build.is_cpu_build(), reason="all tests run without the libraries here")
def test_export_without_the_libraries_is_the_same(tmp_path: Path) -> None:
    """The same engines, byte for byte, and the same operators in PyTorch, as with Torch-TensorRT's libraries."""
    runs = []
    for how in ("hidden", "as installed"):
        command = [sys.executable, "-c", EXPORT, how, str(tmp_path / f"{how}.windows.ep")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        runs.append(done.stdout)
    hidden, installed = (run.splitlines()[-1].partition(" ") for run in runs)
    assert (hidden[0], installed[0]) == ("False", "True")
    assert hidden[2] == installed[2]


def test_older_releases_are_refused_beside_a_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names both ways out: the CUDA build, or a release that can do without."""
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(EnvironmentMismatchError, match=r"CPU-only build.*no GPU is needed.*2\.12.*or take .* 2\.13"):
        cpu_build.check_build("tensorrt_rtx", "torch-tensorrt-rtx", "2.12.1")
    cpu_build.check_build("tensorrt_rtx", "torch-tensorrt-rtx", "2.13.0")


def test_classic_tensorrt_is_refused_beside_a_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """It compiles on a GPU: says so, and names the backend that does not."""
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(EnvironmentMismatchError, match=r"compiles on a GPU.*take the backend tensorrt_rtx"):
        cpu_build.check_build("tensorrt", "torch-tensorrt", "2.14.0")
