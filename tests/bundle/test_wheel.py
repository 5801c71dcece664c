"""The package's own wheel in a bundle: as the format wants it, always the same bytes; pip finds the rest."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.artifacts import put
from support.paths import REPOSITORY

import lightning_trt_windows
from lightning_trt_windows import collect
from lightning_trt_windows.bundle import wheel
from lightning_trt_windows.bundle.reading import extract_bundle
from lightning_trt_windows.bundle.wheel import is_published, package_version, package_wheel
from lightning_trt_windows.bundle.zipped import Member

PACKAGE = Path(lightning_trt_windows.__file__).parent


def opened(member: Member) -> zipfile.ZipFile:
    """The wheel as the zip that it is."""
    return zipfile.ZipFile(io.BytesIO(b"".join(map(bytes, member.pieces()))))


def install(folder: Path, name: str, version: str, *, direct: bool) -> None:
    """Metadata as pip leaves it: ``direct`` where it came from a folder or a file."""
    info = folder / f"lightning_trt_windows-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText.\n")
    if direct:
        (info / "direct_url.json").write_text("{}")


def test_it_holds_the_package_as_it_is() -> None:
    """Every file, byte for byte, and nothing that Python or an editor left; RECORD has the hash of each."""
    with opened(package_wheel("wheels")) as archive:
        names = archive.namelist()
        on_disk = {
            path.relative_to(PACKAGE.parent).as_posix()
            for path in PACKAGE.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        info = f"lightning_trt_windows-{package_version()}.dist-info"
        assert {name for name in names if not name.startswith(info)} == on_disk
        assert names[-1] == f"{info}/RECORD"
        rows = {
            name: (digest, size) for name, digest, size in csv.reader(io.StringIO(archive.read(names[-1]).decode()))
        }
        assert list(rows) == names
        assert rows.pop(names[-1]) == ("", "")
        for name, row in rows.items():
            data = archive.read(name)
            assert name.startswith(info) or data == (PACKAGE.parent / name).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert row == (f"sha256={digest}", str(len(data)))
        metadata = archive.read(f"{info}/METADATA").decode()
        assert f"\nVersion: {package_version()}\n" in metadata and "Requires-Python: " in metadata
        assert "\n\n" not in metadata, "the README of whenever it was installed stays out"
        assert b"Tag: py3-none-any" in archive.read(f"{info}/WHEEL")
        assert b"lightning-trt-windows = lightning_trt_windows.cli:main" in archive.read(f"{info}/entry_points.txt")
        assert b"Apache License" in archive.read(f"{info}/licenses/LICENSE")


def test_the_same_files_give_the_same_bytes() -> None:
    """Nothing in it is of this moment or this machine."""
    first, second = package_wheel("wheels"), package_wheel("wheels")
    assert first.sha256 == second.sha256
    with opened(first) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.linux("starts pip, which the Windows Python of the tests does not have")
def test_pip_installs_it_without_an_index(tmp_path: Path) -> None:
    """And the package then runs from where it was installed."""
    put(tmp_path / "run")
    extract_bundle(collect(tmp_path / "run", tmp_path / "b.zip").path, tmp_path / "unpacked")
    (found,) = (tmp_path / "unpacked/wheels").iterdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", tmp_path / "there"]
    subprocess.run([*map(str, pip), str(found)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "there"), "PYTHONSAFEPATH": "1"}
    code = "import lightning_trt_windows as l, sys; print(l.__file__); print(l.inspect(sys.argv[1], check=True))"
    (ep,) = (tmp_path / "unpacked/artifacts").glob("*.ep")
    done = subprocess.run(
        [sys.executable, "-c", code, str(ep)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "there")), done.stdout
    assert "tiny.windows.ep" in done.stdout


def test_a_published_version_comes_from_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came from a folder or a file under the same number is brought along all the same."""
    monkeypatch.setattr(wheel, "PUBLISHED", ("7.1.0",))
    put(tmp_path / "run")
    for direct, folder in ((True, "from_a_folder"), (False, "from_the_index")):
        install(tmp_path / folder, "lightning-trt-windows", "7.1.0", direct=direct)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / folder))
            assert (package_version(), is_published()) == ("7.1.0", not direct)
            bundle = collect(tmp_path / "run", tmp_path / f"{folder}.zip").path
        with zipfile.ZipFile(bundle) as archive:
            lines = archive.read("requirements-windows.txt").decode().splitlines()
            names = archive.namelist()
        brought = "wheels/lightning_trt_windows-7.1.0-py3-none-any.whl"
        assert (brought in names) == direct
        assert (f"./{brought}" if direct else "lightning-trt-windows==7.1.0") in lines


@pytest.mark.linux("a Python without its packages; the Windows one finds them in PYTHONPATH")
def test_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    """Has no version, and its wheel is one that pip takes nevertheless."""
    code = "import sys; from lightning_trt_windows import collect; print(*collect(sys.argv[1], sys.argv[2]).files)"
    put(tmp_path / "run")
    command = [sys.executable, "-S", "-c", code, str(tmp_path / "run"), str(tmp_path / "b.zip")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "wheels/lightning_trt_windows-0+unknown-py3-none-any.whl" in done.stdout


# pip judges markers such as platform_system by the machine that it runs on, whatever platform it is asked about
AS_ON_WINDOWS = """
import sys
from pip._vendor.packaging import markers
here = markers.default_environment
there = {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"}
markers.default_environment = lambda: {**here(), **there}
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.network
@pytest.mark.linux("starts pip, which the Windows Python of the tests does not have")
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_pip_finds_all_of_a_bundle_for_windows(tmp_path: Path, python: str) -> None:
    """Wheels only, so that an installation compiles nothing.

    PyTorch is asked for as PyPI has it, without CUDA: its own index may be out of reach, and ``make pins`` asks that.
    """
    put(tmp_path / "run", golden=b"recorded").with_name("tiny.windows.json.sig").write_bytes(b"signed")
    extract_bundle(collect(tmp_path / "run", tmp_path / "b.zip").path, tmp_path / "unpacked")
    file = tmp_path / "unpacked" / "requirements-windows.txt"
    text = file.read_text(encoding="utf-8")
    changed = re.sub(r"^--extra-index-url .*\n", "", text, flags=re.M).replace("+cu130", "")
    assert changed.count("\n") == text.count("\n") - 1
    file.write_text(changed, encoding="utf-8")
    report = tmp_path / "report.json"
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--platform", "win_amd64", "--report", report]
    command = ["install", *options, "--python-version", python, "--target", tmp_path / "X", "-r", file.name]
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_WINDOWS, *map(str, command)],
        cwd=tmp_path / "unpacked", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {
        item["metadata"]["name"].lower().replace("_", "-"): item["download_info"]["url"].rpartition("/")[2]
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]
    }
    assert {"torch", "tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings", "safetensors", "cryptography"} < set(found)
    assert all(name.endswith(("win_amd64.whl", "none-any.whl")) for name in found.values()), found
    assert found["lightning-trt-windows"] == f"lightning_trt_windows-{package_version()}-py3-none-any.whl"
