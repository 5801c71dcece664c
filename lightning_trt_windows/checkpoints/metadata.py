"""What a checkpoint says besides its weights, read without them, without PyTorch and without running any code of it.

A checkpoint is a zip archive: one pickle with everything but the data of tensors, which stand in members of their own.
Only that pickle is read, and nothing that it names is imported: where it has anything but plain values and containers,
there is an object without content.
"""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from lightning_trt_windows.errors import CheckpointError

__all__ = ["HYPERPARAMETERS", "SHAPES", "Inert", "Metadata", "read_metadata"]

_LARGEST = 1 << 30
"""Bytes of a pickle that is read at most; those of Lightning have kilobytes, or megabytes with many parameters."""


HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")
"""Keys of a checkpoint under which Lightning keeps what modules and datamodules are rebuilt with."""
SHAPES = "WindowsExport"
"""Key among the states of callbacks under which a checkpoint carries the shapes that its training has seen."""


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says besides its weights."""

    epoch: int | None
    """Epoch in which it was saved, counted from 0."""
    global_step: int | None
    """Number of optimizer steps that had been taken."""
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    """State of each callback, by its key."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """What the module, and the datamodule, are rebuilt with."""
    lightning_version: str | None = None
    """Version of the Lightning that wrote it."""


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Read what ``path`` says besides its weights.

    Args:
        path: A ``.ckpt`` file that Lightning wrote with PyTorch 1.6 or newer.

    Returns:
        Plain values; what is of a class stands there as ``Inert``.

    Raises:
        CheckpointError: The file is missing, damaged, or not such a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if member.file_size > _LARGEST:
                raise CheckpointError(f"{path} has {member.file_size} bytes besides its weights, too many to be read")
            with archive.open(member) as stream:
                content = _Unpickler(stream).load()
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except CheckpointError:
        raise
    # unpickling what is damaged raises anything
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {type(error).__name__}: {error}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(f"{path} is not a Lightning checkpoint: expected a dict with a state_dict")
    callbacks = content.get("callbacks")
    return Metadata(
        epoch=_integer(content.get("epoch")),
        global_step=_integer(content.get("global_step")),
        callbacks=callbacks if isinstance(callbacks, dict) else {},
        hyperparameters={key: content[key] for key in HYPERPARAMETERS if key in content},
        lightning_version=version if isinstance(version := content.get("pytorch-lightning_version"), str) else None,
    )


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) else None


class Inert:
    """Stands for an object whose class is not looked up; takes whatever pickle gives it, and holds nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """Stand for what the object would have returned."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def append(self, value: Any) -> None:
        """Take an item of a list."""

    def extend(self, values: Any) -> None:
        """Take items of a list."""

    def add(self, value: Any) -> None:
        """Take an item of a set."""


class _Unpickler(pickle.Unpickler):
    """Knows ordered dicts and nothing else; tensors have no data."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)

    def find_class(self, module: str, name: str) -> Any:
        return collections.OrderedDict if (module, name) == ("collections", "OrderedDict") else Inert

    def persistent_load(self, pid: Any) -> Any:
        return Inert()
