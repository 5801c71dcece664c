"""Ask the package index which wheels there are for Windows; run as a program (``make pins``).

It compares with the table in ``lightning_trt_windows/bundle/pins.py``, which requirements of bundles quote, and fails
where a version of the table has no wheel. Only metadata is fetched, which takes a pip of 2024 or later: it gets an
environment of its own. PyTorch's own index, with the builds for CUDA, is asked where it can be reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from lightning_trt_windows.bundle.pins import CHECKED_ON, PYTHONS, WHEELS

ASKED = {"tensorrt-rtx": ("tensorrt_rtx_cu13_libs", "tensorrt_rtx_cu13_bindings")}
"""What is asked for where the distribution itself has no code."""


def found(pip: Path, requirement: str, python: str, *options: str) -> str | None:
    """File name of the wheel for Windows, or ``None``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [pip, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps"]
        command += ["--only-binary=:all:", "--platform", "win_amd64", "--python-version", python]
        command += ["--target", folder, "--report", report, *options, requirement]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        (item,) = json.loads(report.read_text(encoding="utf-8"))["install"]
        name: str = item["download_info"]["url"].rpartition("/")[2]
        return name


def missing(pip: Path) -> Iterator[str]:
    """Versions of the table without a wheel, printed and given back as they turn up."""
    for distribution, versions in WHEELS.items():
        for version in versions:
            for name in ASKED.get(distribution, (distribution,)):
                wheels = {python: found(pip, f"{name}=={version}", python) for python in PYTHONS}
                lacking = [python for python, wheel in wheels.items() if wheel is None]
                print(f"{name} {version}: {f'NOT for Python {lacking}' if lacking else 'found'}", flush=True)
                if lacking:
                    yield f"{name} {version}"
    index = "https://download.pytorch.org/whl/cu130"
    newest = WHEELS["torch"][-1]
    wheel = found(pip, f"torch=={newest}+cu130", PYTHONS[1], "--index-url", index, "--retries", "0")
    print(f"torch {newest}+cu130 on PyTorch's own index: {wheel or 'not found, or the index cannot be reached'}")


def main() -> int:
    """Ask for everything in the table."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True, symlinks=True)
        pip = Path(folder, "bin", "python")
        subprocess.run([pip, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=24"], check=True)
        lacking = list(missing(pip))
    today = datetime.now(timezone.utc).date().isoformat()
    print(f"the table says {CHECKED_ON}; today is {today}" + (f"; missing: {', '.join(lacking)}" if lacking else ""))
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
