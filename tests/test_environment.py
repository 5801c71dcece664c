"""Whether an artifact can run here: wanted, found, what to do; all mismatches at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lightning_trt_windows.artifact import Artifact, read_artifact
from lightning_trt_windows.engine_header import EngineHeader
from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.manifest import BackendRecord
from lightning_trt_windows.runtime import environment
from lightning_trt_windows.runtime.environment import Machine, check_environment, mismatches

PORTABLE = ("8.0", "8.6", "8.9", "12.0", "12.1", "newer")
GOOD = Machine(
    system="Windows",
    torch="2.14.1+cu130",
    cuda_build="13.0",
    driver_cuda=13020,
    device="cuda:0",
    gpu="NVIDIA GeForce RTX 4070",
    capability=(8, 9),
    bindings="1.6.1.120",
)
HEADERS = {"e": EngineHeader((1, 6, 1, 120), PORTABLE, 1000, 13040)}


@pytest.fixture
def artifact() -> Artifact:
    """The frozen artifact, as one of PyTorch 2.14 and TensorRT-RTX 1.6 for every GPU from Ampere on."""
    read = read_artifact(Path(__file__).parent / "data" / "tiny.windows.ep")
    return with_capabilities(read, PORTABLE)


def with_capabilities(artifact: Artifact, names: tuple[str, ...], backend: str = "tensorrt_rtx") -> Artifact:
    """``artifact``, built for other GPUs."""
    record = BackendRecord(name=backend, compute_capabilities=names, options={})
    versions = {"torch": "2.14.1+cu130", "tensorrt-rtx": "1.6.1.120", "tensorrt": "11.1.0.5"}
    manifest = dataclasses.replace(artifact.manifest, backend=record, versions=versions)
    return dataclasses.replace(artifact, manifest=manifest)


def found(artifact: Artifact, **changes: Any) -> list[str]:
    """What is wrong with a machine that differs from the good one by ``changes``."""
    return [str(mismatch) for mismatch in mismatches(artifact, dataclasses.replace(GOOD, **changes), HEADERS)]


@pytest.mark.parametrize("changes", [{}, {"system": "Linux"}, {"torch": "2.14.0"}, {"driver_cuda": 13000}])
def test_machines_that_will_do(artifact: Artifact, changes: dict[str, Any]) -> None:
    """Linux too: that is the rehearsal."""
    assert found(artifact, **changes) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torch": "2.13.0"}, r"wanted PyTorch 2.14.*, because torch.export files load only with the minor"),
        ({"torch": None}, "wanted PyTorch 2.14.*, found none: pip install torch==2.14.*"),
        ({"bindings": "1.5.0.114"}, "wanted tensorrt-rtx 1.6.1.120, the version that built the engines, found 1.5.0"),
        ({"bindings": None}, "found none: pip install tensorrt-rtx==1.6.1.120"),
        ({"cuda_build": None}, "wanted a CUDA build of PyTorch, found PyTorch 2.14.1+cu130 for CPUs only"),
        ({"driver_cuda": None}, "wanted an NVIDIA driver, found none: install the driver"),
        ({"driver_cuda": 12080}, "wanted a driver for CUDA 13, found one for CUDA 12.8: update the NVIDIA driver"),
        ({"capability": None}, "wanted an NVIDIA GPU at cuda:0, found none: choose another device"),
        ({"capability": (7, 5), "gpu": "RTX 2070"}, "found RTX 2070 with 7.5: use another GPU, or export"),
    ],
)
def test_machines_that_will_not(artifact: Artifact, changes: dict[str, Any], message: str) -> None:
    """One thing is wrong, one thing is said."""
    (line,) = found(artifact, **changes)
    assert message in line


@pytest.mark.parametrize(
    ("listed", "capability", "verdict"),
    [
        (PORTABLE, (8, 6), "runs"),
        (PORTABLE, (12, 1), "runs"),
        (PORTABLE, (13, 0), "runs"),
        (PORTABLE, (9, 0), "may run"),
        (PORTABLE, (7, 5), "does not"),
        (("8.6",), (8, 6), "runs"),
        (("8.6",), (8, 9), "does not"),
        (("7.5", "8.6"), (7, 5), "runs"),
        ((), (7, 0), "runs"),
    ],
)
def test_gpus(artifact: Artifact, listed: tuple[str, ...], capability: tuple[int, int], verdict: str) -> None:
    """Listed ones run, newer ones where the engine provides for them; datacenter GPUs in between are a warning."""
    machine = dataclasses.replace(GOOD, capability=capability)
    verdicts = [
        "does not" if mismatch.fatal else "may run"
        for mismatch in mismatches(with_capabilities(artifact, listed), machine, HEADERS)
    ]
    assert (verdicts or ["runs"]) == [verdict]


def test_engines_of_tensorrt_run_on_windows_only(artifact: Artifact) -> None:
    """Unlike TensorRT-RTX's, they are built for one operating system."""
    classic = with_capabilities(artifact, ("8.9",), "tensorrt")
    assert found(classic, bindings="11.1.0.5") == []
    (line,) = found(classic, bindings="11.1.0.5", system="Linux")
    assert line.startswith("wanted Windows, for which these TensorRT engines were built, found Linux")


def test_a_backend_of_the_future(artifact: Artifact) -> None:
    """Says to upgrade."""
    (line,) = found(with_capabilities(artifact, (), "tensorrt_lx"))
    assert line == "wanted the backend tensorrt_rtx or tensorrt, found tensorrt_lx: upgrade lightning-trt-windows"


def test_engines_that_disagree_with_the_manifest(artifact: Artifact) -> None:
    """The engine's own header counts, whatever the manifest says."""
    headers = {"e": EngineHeader((1, 5, 0, 114), PORTABLE, 1000, 13040)}
    (line,) = [str(mismatch) for mismatch in mismatches(artifact, GOOD, headers)]
    assert "pip install tensorrt-rtx==1.5.0.114" in line


class TestCheck:
    """Raising and warning."""

    def on(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        """Be on another machine."""
        machine = dataclasses.replace(GOOD, **changes)
        monkeypatch.setattr(environment.Machine, "this", lambda *_: machine)

    def test_all_at_once(self, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody wants to install three things one error at a time."""
        self.on(monkeypatch, torch="2.11.0", bindings=None, driver_cuda=None)
        with pytest.raises(EnvironmentMismatchError) as caught:
            check_environment(artifact, "cuda:0", HEADERS)
        lines = str(caught.value).splitlines()
        assert lines[0] == "tiny.windows.ep cannot run here:" and len(lines) == 4
        assert all(line.startswith("  - wanted ") for line in lines[1:])

    def test_a_gpu_that_may_run_it(self, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
        """A warning, so that a rehearsal on a datacenter GPU is possible."""
        self.on(monkeypatch, capability=(9, 0), gpu="NVIDIA H200")
        with pytest.warns(UserWarning, match="found NVIDIA H200 with 9.0: it may run"):
            check_environment(artifact, "cuda:0", HEADERS)

    def test_this_machine(self) -> None:
        """What is here is found without an error, with or without a GPU."""
        pytest.importorskip("tensorrt_rtx", reason="looks at the installed bindings")
        machine = Machine.this("tensorrt_rtx", "cuda:0")
        assert machine.torch and machine.bindings and machine.bindings.count(".") == 3
        assert (machine.gpu is None) == (machine.capability is None)
