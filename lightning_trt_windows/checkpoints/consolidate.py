"""A checkpoint that several processes wrote, each its part, as one file: by programs of Lightning and DeepSpeed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lightning_trt_windows.artifact.files import replacing
from lightning_trt_windows.checkpoints.reader import consolidated_path, consolidation, last_written
from lightning_trt_windows.checkpoints.zero import parts_of, write_one_file
from lightning_trt_windows.errors import CheckpointError
from lightning_trt_windows.storage.remote_file import RemoteFile, download_checkpoint, temporary_directory

__all__ = ["local_file", "one_file"]


def one_file(path: Path, *, trusted: bool) -> Path:
    """``path``; for a sharded checkpoint the file that is made of it, beside it. It is made once.

    Args:
        path: A checkpoint.
        trusted: Allow code to run: the parts, or the index of them, are pickles. Without it a directory is given back
            as it is, and ``read_checkpoint`` says what can be done.

    Returns:
        The file.

    Raises:
        CheckpointError: No single file can be made of it; what Lightning's or DeepSpeed's programs said is in the
            message.
        EnvironmentMismatchError: DeepSpeed wrote it, and cannot be imported here.
    """
    last = last_written(path) if trusted else None
    if last is None:
        return path
    whole = consolidated_path(path)
    if whole.is_file() and whole.stat().st_mtime_ns >= last.stat().st_mtime_ns:
        return whole
    with replacing(whole, ".ckpt") as temporary:
        if parts_of(path):
            write_one_file(path, temporary)
        else:
            _by_lightning(path, temporary)
    return whole


def _by_lightning(path: Path, temporary: Path) -> None:
    failures = []
    for strategy, arguments in consolidation(path, temporary).items():
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and temporary.is_file():
            return
        last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        failures.append(f"\n  the one for {strategy}: {last}")
    raise CheckpointError(f"Lightning's programs make no single file of {path}:{''.join(failures)}")


def local_file(
    place: Path | RemoteFile, *, trusted: bool, directory: Path | None = None
) -> tuple[Path, Path | RemoteFile]:
    """The checkpoint as a file on this machine, and what its artifact is named after.

    Args:
        place: The checkpoint.
        trusted: As for ``one_file``.
        directory: Where a copy of a remote one goes; by default a directory that is deleted when the process ends.

    Returns:
        The file on this machine, and the place that its artifact is named after.

    Raises:
        CheckpointError: The checkpoint does not exist, or ``one_file`` cannot make one file of it.
        EnvironmentMismatchError: As ``one_file`` raises it.
    """
    if isinstance(place, RemoteFile):
        return download_checkpoint(place, directory or temporary_directory()), place
    path = one_file(place, trusted=trusted)
    return path, path
