"""Whether an artifact can run here: wanted, found, what to do; all mismatches at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from support.paths import DATA

from lightning_trt_windows._compat import bindings
from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.engine_header import EngineHeader
from lightning_trt_windows.artifact.manifest import BackendRecord
from lightning_trt_windows.errors import EnvironmentMismatchError
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
    read = read_artifact(DATA / "tiny.windows.ep")
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


def classic(artifact: Artifact, **options: Any) -> Artifact:
    """``artifact`` as one of TensorRT 11.1.0.5, built on a GPU of 8.9."""
    everywhere = options.get("hardware_compatible", False)
    built = with_capabilities(artifact, ("8.0", "newer") if everywhere else ("8.9",), "tensorrt")
    target = "ampere_and_newer" if everywhere else "same_capability"
    record = dataclasses.replace(built.manifest.backend, options=options, target=target)
    return dataclasses.replace(built, manifest=dataclasses.replace(built.manifest, backend=record))


def test_engines_of_tensorrt_run_on_windows_only(artifact: Artifact) -> None:
    """Unlike TensorRT-RTX's, they are built for one operating system; their twins run on Linux only."""
    assert found(classic(artifact), bindings="11.1.0.5") == []
    (line,) = found(classic(artifact), bindings="11.1.0.5", system="Linux")
    assert line.startswith("wanted Windows, for which these TensorRT engines were built, found Linux")
    assert found(classic(artifact, twin=True), bindings="11.1.0.5", system="Linux") == []
    (line,) = found(classic(artifact, twin=True), bindings="11.1.0.5")
    assert line.startswith("wanted Linux: this is the twin (host build) of an artifact")


@pytest.mark.parametrize(
    ("options", "bindings", "message"),
    [
        ({}, "11.1.0.5", None),
        ({}, "11.2.0.1", "pip install tensorrt==11.1.0.5; to run on newer ones of the same major, export with"),
        ({}, "10.16.1.11", "wanted tensorrt 11.1.0.5, the version that built the engines, found 10.16.1.11"),
        ({}, None, "found none: pip install tensorrt==11.1.0.5"),
        ({"version_compatible": True}, "11.1.0.5", None),
        (
            {"version_compatible": True},
            "11.10.0.1",
            "wanted TensorRT's lean runtime 11.1.0.5 beside the newer TensorRT",
        ),
        ({"version_compatible": True}, "11.0.9.9", "wanted tensorrt 11.1.0.5 or newer, below 12"),
        ({"version_compatible": True}, "12.0.0.1", "wanted tensorrt 11.1.0.5 or newer, below 12"),
        ({"version_compatible": True}, None, "found none: pip install tensorrt==11.1.0.5"),
    ],
)
def test_versions_of_tensorrt(
    artifact: Artifact, options: dict[str, Any], bindings: str | None, message: str | None
) -> None:
    """The very version, or a newer one of the same major where that was asked for at the export."""
    lines = found(classic(artifact, **options), bindings=bindings)
    assert [message] == [message for line in lines if message in line] if message else lines == []


@pytest.mark.parametrize(
    ("options", "capability", "message"),
    [
        ({}, (8, 9), None),
        ({}, (12, 0), "with compile_options={'hardware_compatible': True}, or with backend='tensorrt_rtx'"),
        ({}, (8, 6), "TensorRT built for the GPU of its own machine: export on one with 8.6"),
        ({"hardware_compatible": True}, (8, 0), None),
        ({"hardware_compatible": True}, (8, 6), None),
        ({"hardware_compatible": True}, (12, 0), None),
        ({"hardware_compatible": True}, (7, 5), "use a GPU of the Ampere generation or newer"),
    ],
)
def test_gpus_of_tensorrt(
    artifact: Artifact, options: dict[str, Any], capability: tuple[int, int], message: str | None
) -> None:
    """That of the machine that built, unless asked otherwise."""
    lines = found(classic(artifact, **options), bindings="11.1.0.5", capability=capability)
    assert [message] == [message for line in lines if message in line] if message else lines == []


@pytest.mark.parametrize("ending", ["", "-cu13", "-cu12"])
def test_the_bindings_under_each_of_their_names(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Which distribution brings the module ``tensorrt`` depends on how it was installed."""
    monkeypatch.setattr(bindings, "installed_version", {f"tensorrt{ending}": "11.1.0.106"}.get)
    assert bindings.installed_bindings("tensorrt") == "11.1.0.106"
    assert bindings.installed_bindings("tensorrt_rtx") is None


def test_the_lean_runtime_of_the_version_that_built(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found in NVIDIA's wheel of that very version, and used beside a newer TensorRT only."""
    folder = tmp_path / "tensorrt_lean_libs"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "nvinfer_lean_11.dll").touch()
    monkeypatch.syspath_prepend(tmp_path)
    installed = {"tensorrt": "11.2.0.1", "tensorrt-lean-cu13-libs": "11.1.0.5"}
    monkeypatch.setattr(bindings, "installed_version", installed.get)
    compatible = classic(artifact, version_compatible=True)
    assert environment.lean_runtime_for(compatible) == str(folder / "nvinfer_lean_11.dll")
    assert found(compatible, bindings="11.2.0.1") == []
    assert environment.lean_runtime_for(classic(artifact)) is None
    assert environment.lean_runtime_for(artifact) is None
    installed["tensorrt"] = "11.1.0.5"
    assert environment.lean_runtime_for(compatible) is None
    installed.update({"tensorrt": "11.2.0.1", "tensorrt-lean-cu13-libs": "11.1.0.6"})
    assert environment.lean_runtime_for(compatible) is None


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
