"""Start the Windows Python under Wine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.windows_python.cache import RecipeError, call, made
from tools.windows_python.cpython import RUNTIME_DLLS
from tools.windows_python.project import REPOSITORY, bytecode, installed_project

__all__ = ["environment", "prepare_wine", "run", "windows_path"]


def prepare_wine() -> Path:
    """The folder that Wine calls a prefix: drive C and the registry, set to Windows 10.

    Raises:
        RecipeError: Wine is not installed.
    """
    return made("wine", [Path(__file__)], _make_prefix)


def _make_prefix(place: Path) -> None:
    variables = _variables(place)
    call(
        _program(),
        "reg",
        "add",
        r"HKCU\Software\Wine",
        "/v",
        "Version",
        "/d",
        "win10",
        "/f",
        where=place,
        environment=variables,
    )
    call(shutil.which("wineserver") or "/usr/lib/wine/wineserver", "--wait", where=place, environment=variables)


def _program() -> str:
    program = shutil.which("wine64") or shutil.which("/usr/lib/wine/wine64")
    if not program:
        raise RecipeError("wine64 was not found: apt-get install wine64")
    return program


def _variables(prefix: Path) -> dict[str, str]:
    return {
        "WINEPREFIX": str(prefix),
        "WINEDEBUG": "-all",
        # else Wine asks whether to download .NET and a browser, and a debugger prints pages when a
        # program crashes; Microsoft's C++ runtime comes before Wine's own
        "WINEDLLOVERRIDES": f"mscoree,mshtml,winedbg.exe=;{','.join(RUNTIME_DLLS)}=n,b",
    }


def windows_path(path: Path) -> str:
    r"""``path`` as programs under Wine see it: drive ``Z:`` is the whole file system."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


def environment(prefix: Path, packages: Sequence[Path], more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a program under Wine: this process's, those of Wine, and ``packages`` on the import path.

    Args:
        prefix: Of :func:`prepare_wine`.
        packages: Folders, the first searched first.
        more: Variables that replace any of those.
    """
    # variables of this machine's own Python and of other programs mean nothing there, and paths would be wrong
    foreign = ("PYTHON", "PYTEST_", "TEMP", "TMP", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        **_variables(prefix),
        "PYTHONPATH": ";".join(windows_path(path) for path in packages),
        "PYTHONPYCACHEPREFIX": windows_path(bytecode()),
        "PYTHONSAFEPATH": "1",  # the folder that it runs in is not searched for the package
        "KMP_AFFINITY": "disabled",  # OpenMP of PyTorch asks for processor groups, which Wine does not have
        "OMP_NUM_THREADS": "1",
        **(more or {}),
    }


def run(python: Path, wheels: Path, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> int:
    """Run ``python.exe`` with ``arguments`` in this repository; print what it prints, return its exit status.

    The package is the one that the repository's wheel would install, not the folder itself.

    Args:
        python: Folder of ``python.exe``.
        wheels: Folder of the packages.
        arguments: For the Windows Python.
        more: Environment variables beside those of :func:`environment`.

    Raises:
        RecipeError: Wine is not installed, or the package cannot be built.
    """
    with installed_project() as project:
        variables = environment(prepare_wine(), [project, wheels], more)
        # with a terminal or a file for standard streams Wine makes a console of its own
        process = subprocess.Popen(
            [_program(), str(python / "python.exe"), *arguments], cwd=REPOSITORY, env=variables,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        # not to the end of the pipe, which Wine's server has too, and keeps as long as another run needs that server
        copying = threading.Thread(target=_copy, args=(process.stdout.fileno(),), daemon=True)
        copying.start()
        status = process.wait()
        copying.join(timeout=5)
        return status


def _copy(descriptor: int) -> None:
    """Print what can be read from ``descriptor``, as soon as it can."""
    while data := os.read(descriptor, 65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
