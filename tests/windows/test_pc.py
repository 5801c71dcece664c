"""What a PC does with what a Linux machine has just built: the bundle, its script, TensorRT-RTX's own bindings.

Each test runs on both systems. Where both must do the same, the Linux run leaves what it got in the folder of recorded
artifacts, and the Windows run compares.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.artifacts import put
from support.paths import REPOSITORY, TESTS
from support.recorded import VARIABLE
from support.stand_in import StandIn, export_for_test
from support.windows_half import runs_on_windows
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, collect, inspect, verify
from lightning_trt_windows._compat import bindings as door
from lightning_trt_windows._compat.bindings import bindings
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.bundle.reading import extract_bundle
from lightning_trt_windows.cli import main
from lightning_trt_windows.errors import EnvironmentMismatchError

BATCH = DimRange(1, 2, 4, name="batch")


class Mixed(nn.Module):
    """Two engines with an operator of PyTorch between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        _, values, _ = torch.linalg.svd(y.reshape(-1, 2, 4) + 0.1, full_matrices=False)
        return self.second(y) + values.sum()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, StandIn]:
    """An artifact of this very version of the package, with goldens."""
    torch.manual_seed(0)
    module = Mixed().eval()
    # the name is in the bundle that both systems make: the same whatever tests ran before
    path = tmp_path_factory.mktemp("of_this_version", numbered=False) / "mixed.windows.ep"
    return module, export_for_test(module, {"x": InputSpec((BATCH, 8))}, path, golden=True)


def same_on_both(name: str, text: str) -> None:
    """On Linux leave ``text`` for Windows; there, it must be the same."""
    if VARIABLE not in os.environ:
        if sys.platform == "win32":
            pytest.skip(f"compares with what Linux left: {VARIABLE} names no folder")
        return
    file = Path(os.environ[VARIABLE], f"{name}.txt")
    if sys.platform == "win32":
        assert text == file.read_text(encoding="utf-8")
    else:
        file.write_text(text, encoding="utf-8")


@pytest.mark.linux("the tool that runs these tests there is one of Linux")
def test_whatever_exports_is_left_for_windows() -> None:
    """Each file that takes an export from Linux is one of those that the tool runs on Linux before."""
    sys.path.insert(0, str(REPOSITORY))
    try:
        from tools.windows_python.suite import exporting
    finally:
        sys.path.remove(str(REPOSITORY))
    taking = {
        file.relative_to(REPOSITORY).as_posix()
        for file in TESTS.rglob("test_*.py")
        if runs_on_windows(file) and re.search(r"^from support\.(stand_in|recorded) ", file.read_text(), flags=re.M)
    }
    assert len(taking) > 5 and taking == set(exporting())


def test_the_program_computes_what_the_module_does(built: tuple[nn.Module, StandIn]) -> None:
    """Reader, graph, fallback parts and weights are the real ones; the engines' own graphs stand in for the engines."""
    module, stand_in = built
    loaded = stand_in.load()
    for batch in (1, 2, 4):
        x = torch.randn(batch, 8)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), module(x), rtol=1e-4, atol=1e-5)


def test_goldens_are_met(built: tuple[nn.Module, StandIn]) -> None:
    """Recorded outputs, read with the real safetensors."""
    found = verify(built[1].artifact.path, loaded=built[1].load())
    assert found.passed and len(found.calls) >= 3, str(found)


def test_the_commands_read_it(built: tuple[nn.Module, StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    """``inspect --check`` and ``verify`` without a GPU."""
    path = str(built[1].artifact.path)
    assert main(["inspect", "--check", "--json", path]) == 0
    assert json.loads(capsys.readouterr().out)["issues"] == []
    assert main(["verify", "--no-numbers", path]) == 0


def test_bundles_are_the_same_bytes(built: tuple[nn.Module, StandIn], tmp_path: Path) -> None:
    """Whichever system collects."""
    run = tmp_path / "run"
    put(run, "epoch=0", step=1, score=0.5)
    put(run / "late", "epoch=1", step=2, score=0.75)
    for name, options in (("all", {"which": "all"}), ("engines", {"which": "all", "engines": True})):
        bundle = collect([run, built[1].artifact.path.parent], tmp_path / f"{name}.zip", **options)  # type: ignore[arg-type]
        same_on_both(f"bundle-{name}", f"{sha256_of(bundle.path)}\n" + "\n".join(sorted(bundle.files)))


def test_a_bundle_is_unpacked_and_its_script_starts(built: tuple[nn.Module, StandIn], tmp_path: Path) -> None:
    """Up to where a GPU is needed: that is the reason it gives, with the code of a machine that will not do."""
    bundle = collect(built[1].artifact.path.parent, tmp_path / "b.zip")
    extract_bundle(bundle.path, tmp_path / "unpacked")
    (path,) = (tmp_path / "unpacked/artifacts").rglob("*.ep")
    assert inspect(path, check=True).issues == ()
    done = subprocess.run(
        [sys.executable, "run.py", "--calls", "3"], cwd=tmp_path / "unpacked", capture_output=True, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=False,
    )  # fmt: skip
    assert "mixed.windows.ep" in done.stdout and "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 3 and "cannot run here" in done.stderr, done.stderr


def test_tensorrt_rtx_imports_and_makes_a_runtime(built: tuple[nn.Module, StandIn]) -> None:
    """NVIDIA's own library, of the version that the artifact was built with; without a driver it goes no further."""
    module = bindings("tensorrt_rtx")
    built_with = built[1].artifact.manifest.versions
    assert module.__version__ == built_with.get("tensorrt-rtx", built_with.get("tensorrt-rtx-cu13"))
    assert module.Runtime(module.Logger()) is not None
    assert importlib.import_module("tensorrt_rtx") is module


def test_the_two_wheels_of_a_bundle_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries and bindings, without the distributions of source code that import the one from the other."""
    whole = bindings("tensorrt_rtx")
    find, version = importlib.util.find_spec, door.installed_version
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorrt_rtx" else find(name))
    sources = ("tensorrt-rtx", "tensorrt-rtx-cu13")
    monkeypatch.setattr(door, "installed_version", lambda name: None if name in sources else version(name))
    found = bindings("tensorrt_rtx")
    assert found.__name__ == "tensorrt_rtx_bindings"
    assert (found.__version__, found.Runtime) == (whole.__version__, whole.Runtime)
    assert door.installed_bindings_name("tensorrt_rtx") == "tensorrt-rtx-cu13-bindings"
    assert door.installed_bindings("tensorrt_rtx") == whole.__version__


def test_bindings_that_do_not_import_are_installed_again_with_their_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command names both wheels, for the bindings do not ask for the libraries."""
    monkeypatch.setattr(door, "installed_version", lambda name: "1.6.1" if name.endswith("-cu13-bindings") else None)

    def fails(name: str) -> None:
        raise ImportError("DLL load failed while importing tensorrt_rtx")

    monkeypatch.setattr(importlib, "import_module", fails)
    wanted = r"--force-reinstall tensorrt-rtx-cu13-libs==1\.6\.1 tensorrt-rtx-cu13-bindings==1\.6\.1$"
    with pytest.raises(EnvironmentMismatchError, match=wanted):
        bindings("tensorrt_rtx")
