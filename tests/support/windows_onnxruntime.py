"""ONNX Runtime for Windows, as far as compiling and starting the C++ sample under Wine takes it.

The DLLs are those of the Windows wheels of ``onnxruntime`` and ``msvc-runtime``. The wheels have no headers, which are
in the NuGet package Microsoft.ML.OnnxRuntime: ``ONNXRUNTIME_INCLUDE`` names a folder with them. Where it is not set,
they are taken from a package of npm that ships them inside its build for iOS (150 MB, once).
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from tools.windows_python.cache import call, made

__all__ = ["INCLUDE", "windows_onnxruntime"]

INCLUDE = "ONNXRUNTIME_INCLUDE"
_WHEELS = ("onnxruntime==1.32.0", "msvc-runtime==14.44.35112")
_HEADERS = "com.github.asus4.onnxruntime@0.4.9"
"""Has the headers of version 29 of the C API, which later libraries serve as well."""


def windows_onnxruntime() -> Path:
    """A folder with ``include`` and ``dll``; downloaded where the cache has none.

    Raises:
        RecipeError: pip or npm finds nothing.
    """
    return made("onnxruntime", [Path(__file__)], _make)


def _make(place: Path) -> None:
    (place / "dll").mkdir()
    platform = ("--platform", "win_amd64", "--python-version", "3.11", "--only-binary=:all:", "--no-deps")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    call(*pip, *platform, "--dest", place / "work", *_WHEELS, where=place)
    for wheel in (place / "work").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(".dll"):
                    (place / "dll" / Path(member).name).write_bytes(archive.read(member))
    if given := os.environ.get(INCLUDE):
        shutil.copytree(given, place / "include")
    else:
        (place / "include").mkdir()
        call("npm", "pack", "--silent", _HEADERS, where=place / "work")
        (package,) = (place / "work").glob("*.tgz")
        with tarfile.open(package) as archive:
            for member in archive:
                path = Path(member.name)
                if path.suffix == ".h" and "ios-arm64" in path.parts:
                    (place / "include" / path.name).write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]
    shutil.rmtree(place / "work")
