"""What a stranger installs: the right files, and a command that works where nothing else is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
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
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of an environment that holds the installed wheel and nothing else: no torch, no Lightning."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, symlinks=True, with_pip=True)
    run(home / "bin/python", "-m", "pip", "install", "--no-index", "--no-deps", "-q", wheel, cwd=home)
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


def test_sdist_holds_what_the_tests_and_the_demo_need(built: Path) -> None:
    """Every tracked or new file that is not ignored, and nothing that is: no environment, checkpoint or cache."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "Makefile", "README.md", "examples/digits.py", "pyproject.toml", "tests/conftest.py"} <= names
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: nothing to compare the rest with")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).splitlines()
    assert names - {"PKG-INFO"} <= {name for name in listed if (REPOSITORY / name).exists()}


def test_metadata_needs_nothing_unless_an_extra_is_asked_for(wheel: Path) -> None:
    """A plain install works on any machine; Python and licence are declared, known-bad releases are out of range."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    requirements = metadata.get_all("Requires-Dist") or []
    assert [r for r in requirements if "extra ==" not in r] == []
    assert sorted(metadata.get_all("Provides-Extra") or []) == ["dev", "rtx", "tensorrt"]
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
