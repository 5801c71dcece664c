"""A checkpoint that several processes wrote, each its part, as one file: by Lightning's own programs."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

from lightning_trt_windows.artifact.files import TEMPORARY_PREFIX
from lightning_trt_windows.checkpoints.reader import consolidated_path, consolidation, is_sharded
from lightning_trt_windows.errors import CheckpointError
from lightning_trt_windows.storage.remote_file import RemoteFile, download_checkpoint, temporary_directory

__all__ = ["local_file", "one_file"]


def one_file(path: Path, *, trusted: bool) -> Path:
    """``path``; for a directory of parts the file that is made of them, beside it. It is made once.

    Args:
        path: A checkpoint.
        trusted: Allow code to run: the index of the parts is a pickle. Without it a directory is given back as it is,
            and ``read_checkpoint`` says what can be done.

    Raises:
        CheckpointError: Lightning cannot make one file of it; what its programs said is in the message.
    """
    if not trusted or not is_sharded(path):
        return path
    whole = consolidated_path(path)
    if whole.is_file() and whole.stat().st_mtime_ns >= (path / ".metadata").stat().st_mtime_ns:
        return whole
    said = []
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}.ckpt")
    try:
        for strategy, arguments in consolidation(path, temporary).items():
            command = [sys.executable, "-m", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0 and temporary.is_file():
                temporary.replace(whole)
                return whole
            last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
            said.append(f"\n  that for {strategy}: {last}")
    finally:
        temporary.unlink(missing_ok=True)
    raise CheckpointError(f"{path} has parts of which Lightning's programs make no file:{''.join(said)}")


def local_file(place: Path | RemoteFile, *, trusted: bool) -> tuple[Path, Path | RemoteFile]:
    """The checkpoint as a file on this machine, and what its artifact is named after.

    Raises:
        CheckpointError: It is not there, or as ``one_file`` says.
    """
    if isinstance(place, RemoteFile):
        return download_checkpoint(place, temporary_directory()), place
    path = one_file(place, trusted=trusted)
    return path, path
