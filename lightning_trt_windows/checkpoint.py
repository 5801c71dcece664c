"""Read a Lightning checkpoint: weights, where it stands in training, and what file it is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_trt_windows.artifact import sha256_of
from lightning_trt_windows.errors import CheckpointError
from lightning_trt_windows.filenames import windows_name
from lightning_trt_windows.manifest import CheckpointRecord

__all__ = ["Checkpoint", "read_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file that has been read."""

    path: Path
    state_dict: Mapping[str, Any]
    epoch: int | None
    global_step: int | None

    def record(self) -> CheckpointRecord:
        """What the manifest says about it; reads the file once more for its hash."""
        return CheckpointRecord(
            file=windows_name(self.path.name),
            sha256=sha256_of(self.path),
            epoch=self.epoch,
            global_step=self.global_step,
        )

    def same_weights(self, other: Checkpoint) -> bool:
        """Whether both hold the same tensors under the same names, bit for bit."""
        if self.state_dict.keys() != other.state_dict.keys():
            return False
        return all(_equal(self.state_dict[key], other.state_dict[key]) for key in self.state_dict)


def read_checkpoint(path: Path, *, trusted: bool = False) -> Checkpoint:
    """Read ``path`` onto the CPU.

    Args:
        path: A ``.ckpt`` file.
        trusted: Allow the file to run code while it is read, as pickle does. Only for files you made yourself.

    Raises:
        CheckpointError: Missing, damaged, not a Lightning checkpoint, or in need of ``trusted``.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except pickle.UnpicklingError as error:
        if not trusted:
            raise CheckpointError(
                f"{path} holds more than weights and plain values, and reading it would run code that it names: "
                f"{_refused(error)}. If you made this file yourself, allow it with trust_checkpoint=True "
                "(--trust-checkpoint on the command line)"
            ) from error
        content = _read_trusted(path)
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        found = f"a dict with {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else type(content)
        raise CheckpointError(f"{path} is not a Lightning checkpoint: expected a dict with a state_dict, found {found}")
    return Checkpoint(path, content["state_dict"], content.get("epoch"), content.get("global_step"))


def _read_trusted(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    # unpickling runs whatever the file names
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def _refused(error: pickle.UnpicklingError) -> str:
    """The name that torch's reader refused, from a message of many lines."""
    for line in str(error).splitlines():
        if "GLOBAL" in line:
            return line.split("GLOBAL", 1)[1].split("was not")[0].strip(" :")
    return str(error).splitlines()[0]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
