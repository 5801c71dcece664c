"""The versions that are supported, one command for each column of the matrix; ``nox --list`` names them.

    nox -s "versions(torch='2.12')"    or, with another Python: nox -P 3.10 -s "versions(torch='2.12')"
    nox -s cpu                         the same on a build of PyTorch for CPUs only

Each installs exact versions into an environment of its own (1.5 GB for ``cpu``, about 6 GB for the others), runs the
tests of the compile path and the demo, and writes its row into ``tests/data/versions.json`` and ``docs/versions.md``.
With ``CI`` set the row is made and shown but not written. Arguments after ``--`` go to pytest instead of the list of
tests below, and then no row is made.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["versions", "cpu"]
nox.options.stop_on_first_error = False

PINS = {
    # not for users: it does not import with the TensorRT-RTX that it asks for, so one is chosen by hand
    "2.11": ("torch==2.11.0", "torch-tensorrt-rtx==2.11.0", "tensorrt-rtx==1.4.0.76", "lightning==2.6.6"),
    # the oldest of everything
    "2.12": ("torch==2.12.1", "torch-tensorrt-rtx==2.12.1", "lightning==2.5.0.post0"),
    # exactly that: an index with builds for CPUs as well would give 2.13.0+cpu
    "2.13": ("torch===2.13.0", "torch-tensorrt-rtx==2.13.0", "lightning==2.5.6"),
    # the newest of everything
    "2.14": ("torch==2.14.1", "torch-tensorrt-rtx==2.14.0", "lightning==2.6.6"),
}
CPU_PINS = ("torch==2.13.0+cpu", "torch-tensorrt-rtx==2.13.0", "lightning==2.6.6")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BY_HAND = "2.11"

COMPILE_PATH = (
    "tests/_compat",
    "tests/backends/test_against_upstream.py",
    "tests/backends/test_compiler.py",
    "tests/training/test_callback.py",
    "tests/capture/test_program.py",
    "tests/training/test_doctor.py",
    "tests/test_options_page.py",
    "tests/backends/test_precision.py",
    "tests/runtime/test_program_reader.py",
)
"""What PyTorch, Torch-TensorRT and Lightning could break. The rest of the tests is about this package alone."""

TOOLS = ("hypothesis", "pytest", "scikit-learn")
"""What these tests and the demo need of the extra ``dev``."""


@nox.session
@nox.parametrize("torch", [nox.param(torch, id=f"torch='{torch}'") for torch in PINS])
def versions(session: nox.Session, torch: str) -> None:
    """One minor of PyTorch and Torch-TensorRT-RTX."""
    if torch == BY_HAND:
        # it is below the extra's range, and finds its libraries only where the linker looks
        session.install("--editable", ".", *PINS[torch], *_tools("rtx", but=PINS[torch]), *_tools("dev", of=TOOLS))
        (libraries,) = Path(session.virtualenv.location).glob("lib/python3.*/site-packages/tensorrt_rtx_libs")
        session.env["LD_LIBRARY_PATH"] = str(libraries)
        # it imports a module that the bindings of 1.4.0 lack, and Torch-TensorRT imports it where it is there
        shutil.rmtree(libraries.parent / "tensorrt_rtx" / "plugin", ignore_errors=True)
    else:
        session.install("--editable", ".[rtx]", *PINS[torch], *_tools("dev", of=TOOLS))
    _run(session, torch)


@nox.session
def cpu(session: nox.Session) -> None:
    """Torch-TensorRT-RTX beside a PyTorch for CPUs only."""
    wanted = ("--editable", ".[rtx]", *CPU_PINS, *_tools("dev", of=TOOLS))
    try:
        # where pip is set up with an index that has CPU builds, from there
        session.install(*wanted)
    except nox.command.CommandFailed:
        session.install(*wanted, "--extra-index-url", CPU_INDEX)
    _run(session, "2.13 for CPUs")


def _tools(extra: str, *, of: tuple[str, ...] | None = None, but: tuple[str, ...] = ()) -> list[str]:
    """Requirements of an extra, with the bounds that pyproject.toml has: those named, or all that are not pinned."""
    requirements = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"][extra]
    names = {requirement: requirement.partition(">")[0].partition("[")[0] for requirement in requirements}
    pinned = {pin.partition("==")[0] for pin in but}
    return [r for r, name in names.items() if (of is None or name in of) and name not in pinned]


def _run(session: nox.Session, column: str) -> None:
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs)
        return
    made = Path(session.virtualenv.location).resolve() / "made"
    shutil.rmtree(made, ignore_errors=True)
    report, runs = made / "report.xml", made / "runs"
    nothing_fails = range(256)  # the row says what failed, and the command that makes the row fails then
    session.run("python", "-m", "pytest", "-q", f"--junit-xml={report}", *COMPILE_PATH, success_codes=nothing_fails)
    session.run("python", "examples/digits.py", "--directory", str(runs), success_codes=nothing_fails)
    # CI looks whether it holds, and leaves the files alone
    what = "check" if os.environ.get("CI") else "record"
    session.run("python", "tests/support/versions_page.py", what, column, str(report), str(runs))
