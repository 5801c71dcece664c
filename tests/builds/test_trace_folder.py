"""What is swept away, and what a living process holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from lightning_trt_windows.builds.trace_folder import STALE_AFTER, TraceFolder, sweep


def aged(directory: Path) -> None:
    """Make everything below older than what is swept away."""
    for path in [*directory.rglob("*"), directory]:
        os.utime(path, (time.time() - STALE_AFTER - 60,) * 2)


def test_held_by_another_process(tmp_path: Path) -> None:
    """A directory stays as long as its process lives, and goes at the first sweep after it was killed."""
    code = (
        "import pathlib, sys, time\n"
        "from lightning_trt_windows.builds.trace_folder import TraceFolder\n"
        "folder = TraceFolder(pathlib.Path(sys.argv[1]))\n"
        "print(folder.path, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip())
            aged(tmp_path)
            sweep(tmp_path)
            assert folder.is_dir()
        finally:
            process.kill()
    aged(tmp_path)
    sweep(tmp_path)
    assert not folder.exists()


def test_closed(tmp_path: Path) -> None:
    """It deletes itself, once."""
    folder = TraceFolder(tmp_path)
    folder.touch()
    folder.close()
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_other_temporary_files(tmp_path: Path) -> None:
    """Old files of ours go, young ones and those of others stay."""
    old, young, other = tmp_path / ".lightning-trt-windows-a", tmp_path / ".lightning-trt-windows-b", tmp_path / "c"
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - STALE_AFTER - 60,) * 2)
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {young, other}
