"""``doctor FILE``, and ``doctor`` on Windows: what has to be right on a machine that runs artifacts."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import DATA

from lightning_trt_windows._compat import bindings
from lightning_trt_windows.cli import main
from lightning_trt_windows.runtime import environment, pc_report
from lightning_trt_windows.runtime.environment import Machine
from lightning_trt_windows.runtime.pc_report import examine_pc

GOOD = Machine("Windows", "2.14.1+cu130", "13.0", 13020, "cuda:0", "GeForce RTX 4070", (8, 9), "1.6.1.120")


def findings(monkeypatch: pytest.MonkeyPatch, file: Path | None = None, **changes: Any) -> dict[str, tuple[bool, str]]:
    """What is found on a machine like ``GOOD`` but for ``changes``."""
    machine = dataclasses.replace(GOOD, **changes)
    monkeypatch.setattr(Machine, "this", classmethod(lambda cls, backend, device: machine))
    monkeypatch.setattr(pc_report, "newest_cuda_of_driver", lambda: machine.driver_cuda)
    return {found.name: (found.ok, found.text) for found in examine_pc(file)}


def test_a_gaming_pc_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is named with its version."""
    found = findings(monkeypatch)
    assert all(ok for ok, _ in found.values()), found
    assert found["gpu"][1] == "GeForce RTX 4070, compute capability 8.9 (Ampere (RTX 30) or Ada (RTX 40))"
    assert found["driver"][1] == "the NVIDIA driver knows CUDA up to 13.2"
    assert "built for CUDA 13.0" in found["pytorch"][1] and "1.6.1.120" in found["tensorrt"][1]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("pytorch", {"torch": None}, "is not installed"),
        ("pytorch", {"torch_failure": "OSError: [WinError 126]; a DLL is missing"}, "does not import: OSError"),
        ("pytorch", {"cuda_build": None, "capability": None}, "a build for CPUs only"),
        ("driver", {"driver_cuda": None}, "there is no NVIDIA driver"),
        ("driver", {"driver_cuda": 12040}, "knows CUDA 12.4, PyTorch was built for 13.0: update the driver"),
        ("gpu", {"capability": None, "gpu": None}, "there is no NVIDIA GPU"),
        ("gpu", {"capability": (7, 5), "gpu": "RTX 2060"}, r"RTX 2060 has compute capability 7.5 (Volta or Turing"),
        ("tensorrt", {"bindings": None}, "pip install tensorrt-rtx"),
        ("tensorrt", {"bindings_failure": "ImportError: DLL load failed"}, "does not import: ImportError"),
    ],
)
def test_each_lack_is_named(monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any], words: str) -> None:
    """With what to do, and only there."""
    found = findings(monkeypatch, **changes)
    assert words in found[name][1] and not found[name][0], found


def test_newer_generations_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """GeForce RTX 50 is 12.0, a Blackwell as the 10.0 of data centers is."""
    found = findings(monkeypatch, capability=(12, 0), gpu="GeForce RTX 5090")
    assert found["gpu"] == (True, "GeForce RTX 5090, compute capability 12.0 (Blackwell (RTX 50))")


def test_versions_are_held_against_an_artifact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another minor of PyTorch, another TensorRT-RTX; and a damaged file before everything else."""
    for name in ("tiny.windows.ep", "tiny.windows.json"):
        shutil.copy(DATA / name, tmp_path)
    file = tmp_path / "tiny.windows.ep"
    texts = [text for ok, text in _against(monkeypatch, file, torch="2.13.0+cu130", bindings="1.5.0.114") if not ok]
    assert any("wanted PyTorch 2." in text for text in texts) and any("wanted tensorrt-rtx" in text for text in texts)
    file.write_bytes(file.read_bytes()[:-1])
    found = _against(monkeypatch, file)
    assert not any(ok for ok, _ in found) and any("bytes instead of" in text for _, text in found)


def _against(monkeypatch: pytest.MonkeyPatch, file: Path, **changes: Any) -> list[tuple[bool, str]]:
    machine = dataclasses.replace(GOOD, **changes)
    monkeypatch.setattr(Machine, "this", classmethod(lambda cls, backend, device: machine))
    return [(found.ok, found.text) for found in examine_pc(file) if found.name == "artifact"]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """On this machine, whatever it has; the exit code says whether all is well."""
    code = main(["doctor", str(DATA / "tiny.windows.ep"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {item["name"] for item in found} >= {"system", "pytorch", "driver", "gpu", "tensorrt", "directory"}
    assert code == (0 if all(item["ok"] for item in found) else 3)
    assert main(["doctor", "nowhere.ep"]) == 7


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere it looks at exports")
def test_on_windows_exporting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """And Microsoft's runtime is looked for."""
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "export" in line] == [
        "ok    export        not here: exports are made on Linux x86-64"
    ]
    assert any(line.startswith("ok    c++ runtime") for line in lines)


def _of_windows(code: int) -> OSError:
    """What importing a package raises there where a DLL of it cannot be loaded."""
    if sys.platform == "win32":
        return OSError(22, "the DLL could not be loaded", "c10.dll", code)
    error = OSError(22, "the DLL could not be loaded")
    error.winerror = code  # type: ignore[attr-defined]  # only Windows sets it
    return error


class TestImports:
    """A package that is installed and does not import is one finding among others."""

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (_of_windows(126), "Microsoft Visual C++ Redistributable"),
            (ImportError("DLL load failed while importing _C: The specified module could not be found."), "vc_redist"),
            (FileNotFoundError("Could not find module 'C:\\x\\rtx.dll' (or one of its dependencies)."), "vc_redist"),
            (_of_windows(1455), "enlarge the paging file"),
            (RuntimeError("TensorRT wants CUDA 13"), "--force-reinstall"),
        ],
    )
    def test_what_to_do(self, error: BaseException, words: str) -> None:
        """By the code of Windows, where there is one."""
        assert words in bindings.import_failure(error)

    def test_it_hides_no_other_mismatch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """PyTorch fails to import, and that TensorRT-RTX is of another version is said all the same."""

        def fails(device: str) -> dict[str, Any]:
            raise _of_windows(126)

        monkeypatch.setattr(environment, "_seen_by_torch", fails)
        monkeypatch.setattr(environment, "installed_version", lambda name: "2.14.1")
        monkeypatch.setattr(environment, "installed_bindings", lambda backend: "1.5.0.114")
        monkeypatch.setattr(environment, "bindings", lambda backend: _raise(environment.EnvironmentMismatchError("no")))
        machine = Machine.this("tensorrt_rtx", "cuda:0")
        assert machine.torch == "2.14.1" and machine.torch_failure and machine.bindings_failure
        artifact = environment_artifact()
        found = [str(mismatch) for mismatch in environment.mismatches(artifact, machine, {})]
        assert any("which does not import" in text and "PyTorch" in text for text in found)
        assert any("TensorRT's bindings" in text for text in found)
        assert any("1.5.0.114" in text and "the version that built" in text for text in found)


def _raise(error: Exception) -> Any:
    raise error


def environment_artifact() -> Any:
    """The frozen one."""
    from lightning_trt_windows.artifact.artifact import read_artifact

    return read_artifact(DATA / "tiny.windows.ep")
