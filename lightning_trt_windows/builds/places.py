"""Which checkpoints are meant by files, directories and patterns, here and elsewhere."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from lightning_trt_windows.checkpoints.reader import is_sharded
from lightning_trt_windows.errors import CheckpointError, ConfigurationError
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of

__all__ = ["Place", "checkpoints_in"]

Place: TypeAlias = Path | RemoteFile
"""A checkpoint on this machine, or elsewhere."""


def checkpoints_in(places: Iterable[str | os.PathLike[str]]) -> list[Place]:
    """The checkpoints that are meant: files, those anywhere below directories, and patterns with ``*``, ``?``, ``**``.

    A file or URL is taken as it is, whether it is there or not. Each is there once, in the order they were named;
    those of a directory or a pattern by name.

    Returns:
        Each once, in the order given, sorted within a directory.

    Raises:
        ConfigurationError: A directory or a pattern without a checkpoint.
    """
    found: dict[str, Place] = {}
    for place in places:
        several = _several(place)
        if several is not None and not several:
            raise ConfigurationError(f"{os.fspath(place)}: there is no checkpoint (*.ckpt)")
        for one in [place_of(place)] if several is None else several:
            found.setdefault(str(one) if isinstance(one, RemoteFile) else os.path.realpath(one), one)
    return list(found.values())


def _several(place: str | os.PathLike[str]) -> Sequence[Place] | None:
    """Checkpoints of a directory or a pattern; ``None`` for what is neither."""
    where = place_of(place)
    if isinstance(where, RemoteFile):
        return _several_there(where)
    text = os.fspath(where)
    if where.exists():
        if not where.is_dir() or is_sharded(where):
            return None
        text = os.path.join(glob.escape(text), "**", "*.ckpt")  # noqa: PTH118 -- a pattern, not a path
    elif not glob.has_magic(text):
        return None
    return sorted(Path(path) for path in glob.glob(text, recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern


def _several_there(where: RemoteFile) -> Sequence[Place] | None:
    try:
        if glob.has_magic(where.url):
            return where.matching()
        return where.below(".ckpt") if where.is_directory() else None
    except OSError as error:
        raise CheckpointError(f"{where} cannot be listed: {error}") from error
