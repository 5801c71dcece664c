"""What a stranger installs: the right files, a command that works where nothing else is, an export where all is."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from support.paths import REPOSITORY

PACKAGE = REPOSITORY / "lightning_trt_windows"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command somewhere else than in the repository; its output, or a failure that shows it."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist, built from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=REPOSITORY)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The one wheel."""
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    """The one sdist."""
    (path,) = built.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel_of_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sdist builds, unpacked somewhere else."""
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (source,) = place.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, cwd=source)
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel_of_sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of an environment that holds the installed wheel and nothing else: no torch, no Lightning."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, symlinks=True, with_pip=True)
    run(home / "bin/python", "-m", "pip", "install", "--no-index", "--no-deps", "-q", wheel_of_sdist, cwd=home)
    return home / "bin"


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module and the typing marker; no tests, no examples, no leftovers."""
    sources = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    wanted = {p.relative_to(REPOSITORY).as_posix() for p in sources}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = {name for name in names if ".dist-info/" in name}
    assert names - information == wanted
    assert "lightning_trt_windows/py.typed" in names
    assert {name.partition(".dist-info/")[2] for name in information} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_wheel_holds_what_is_not_python(wheel: Path) -> None:
    """Files that code opens at run time are there: whatever lies in the package and is not .py, templates for one."""
    data = {p.relative_to(REPOSITORY).as_posix() for p in PACKAGE.rglob("*") if p.suffix not in (".py", ".pyc", "")}
    with zipfile.ZipFile(wheel) as archive:
        assert {"lightning_trt_windows/py.typed"} <= data <= set(archive.namelist())


def test_wheel_declares_entry_points_that_are_there(wheel: Path) -> None:
    """The command, and what Lightning asks for callbacks: each names a module of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (declared,) = (name for name in names if name.endswith("entry_points.txt"))
        entry_points = configparser.ConfigParser()
        entry_points.read_string(archive.read(declared).decode())
    assert entry_points["console_scripts"]["lightning-trt-windows"] == "lightning_trt_windows.cli:main"
    for group in entry_points.sections():
        for target in entry_points[group].values():
            module = target.partition(":")[0].replace(".", "/")
            assert {f"{module}.py", f"{module}/__init__.py"} & set(names), f"{group}: {target}"


def test_sdist_holds_what_the_tests_and_the_demo_need(sdist: Path) -> None:
    """Every tracked or new file that is not ignored, and nothing that is: no environment, checkpoint or cache."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"LICENSE", "Makefile", "README.md", "examples/digits.py", "noxfile.py", "pyproject.toml"}
    assert needed | {"tests/conftest.py", ".ci/run", "docs/versions.md"} <= names
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: nothing to compare the rest with")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).splitlines()
    assert names - {"PKG-INFO"} <= {name for name in listed if (REPOSITORY / name).exists()}


def test_sdist_builds_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    """Byte for byte what the checkout builds: a distribution that starts from the sdist ships the same."""
    assert wheel_of_sdist.name == wheel.name
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(wheel_of_sdist) as other:
        assert one.namelist() == other.namelist()
        assert [name for name in one.namelist() if one.read(name) != other.read(name)] == []


def test_metadata_needs_nothing_unless_an_extra_is_asked_for(wheel: Path) -> None:
    """A plain install works on any machine; Python and licence are declared, known-bad releases are out of range."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    assert [r for r in requirements if "extra ==" not in r] == []
    assert sorted(metadata.get_all("Provides-Extra") or []) == [
        "cli",
        "dask",
        "demo",
        "dev",
        "huggingface",
        "load",
        "mlflow",
        "model-signing",
        "onnx",
        "rtx",
        "s3",
        "sign",
        "slurm",
        "tensorrt",
        "verify",
    ]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.10"
    (rtx,) = (r for r in requirements if r.startswith("torch-tensorrt-rtx"))
    assert rtx == "torch-tensorrt-rtx<2.15,>=2.12.1; extra == 'rtx'"


def test_installed_wheel_has_its_command_without_torch(bare: Path) -> None:
    """The console script starts, and says what it can do, where nothing else is installed."""
    assert "inspect" in run(bare / "lightning-trt-windows", "--help", cwd=bare)
    assert run(bare / "python", "-m", "lightning_trt_windows", "--help", cwd=bare)


def test_installed_wheel_inspects_without_torch(bare: Path, wheel: Path) -> None:
    """The deployment side's first look needs the standard library only, and knows its own version."""
    shown = run(bare / "lightning-trt-windows", "inspect", REPOSITORY / "tests/data/tiny.windows.ep", cwd=bare)
    assert "TensorRT-RTX engines for Windows" in shown
    code = """
import importlib.util, lightning_trt_windows as package
assert importlib.util.find_spec("torch") is None
print(package.__version__)
"""
    assert run(bare / "python", "-c", code, cwd=bare).strip() == wheel.name.split("-")[1]


def test_installed_wheel_exports(wheel: Path, tmp_path: Path) -> None:
    """The wheel's own files export a module and look at the artifact: the checkout is not on the path."""
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "-q", "--target", site, wheel, cwd=tmp_path)
    code = """
import sys, torch
import lightning_trt_windows as package
assert package.__file__.startswith(sys.argv[1]), package.__file__
inputs = {"input": package.InputSpec((package.DimRange(1, 2, 8), 4))}
artifact = package.export_module(torch.nn.Linear(4, 4), inputs, "linear.windows.ep")
package.inspect(artifact.path)
assert not [name for name, module in sys.modules.items() if name.startswith("lightning_trt_windows")
            and not (getattr(module, "__file__", None) or sys.argv[1]).startswith(sys.argv[1])]
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(site)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "linear.windows.json").is_file()
