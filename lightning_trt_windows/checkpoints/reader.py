"""Read a Lightning checkpoint: weights, where it stands in training, and what file it is."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import pickle
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from lightning_trt_windows.artifact.files import sha256_of_stream
from lightning_trt_windows.artifact.manifest import CheckpointRecord, Score
from lightning_trt_windows.artifact.windows_names import windows_name
from lightning_trt_windows.checkpoints.metadata import HYPERPARAMETERS, Inert, read_metadata
from lightning_trt_windows.checkpoints.zero import LAST, parts_of
from lightning_trt_windows.errors import CheckpointError

__all__ = [
    "Checkpoint",
    "CheckpointFile",
    "FileHash",
    "checkpoint_file",
    "consolidated_path",
    "consolidation",
    "in_need_of_trust",
    "is_sharded",
    "last_written",
    "read_checkpoint",
    "read_weights",
    "step_of",
]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file that has been read."""

    path: Path
    state_dict: Mapping[str, Any]
    epoch: int | None
    global_step: int | None
    sha256: str = ""
    """SHA-256 of the file, taken of what was read."""
    scores: tuple[Score, ...] = ()
    """What ModelCheckpoint kept it for."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """What the module, and the datamodule, are rebuilt with."""

    def record(self) -> CheckpointRecord:
        """What the manifest says about it."""
        return CheckpointRecord(
            file=windows_name(self.path.name),
            sha256=self.sha256,
            epoch=self.epoch,
            global_step=self.global_step,
            scores=self.scores,
        )

    def same_weights(self, other: Checkpoint) -> bool:
        """Whether both hold the same tensors under the same names, bit for bit."""
        if self.state_dict.keys() != other.state_dict.keys():
            return False
        return all(_equal(self.state_dict[key], other.state_dict[key]) for key in self.state_dict)


def is_sharded(path: Path) -> bool:
    """Whether ``path`` is a checkpoint that several processes wrote, each its part: a directory."""
    return last_written(path) is not None


def last_written(path: Path) -> Path | None:
    """The file that is written into the directory ``path`` when all parts are there; ``None`` where it is no such."""
    index = path / ".metadata"
    if index.is_file():
        return index
    return path / LAST if parts_of(path) else None


def read_checkpoint(path: Path, *, trusted: bool = False) -> Checkpoint:
    """Read ``path`` onto the CPU.

    Args:
        path: A ``.ckpt`` file.
        trusted: Allow the file to run code while it is read, as pickle does. Only for files you made yourself.

    Returns:
        What the checkpoint holds.

    Raises:
        CheckpointError: The file is missing, damaged, not a Lightning checkpoint, or cannot be read without
            ``trusted``.
    """
    with checkpoint_file(path) as file:
        return file.read(trusted=trusted)


def checkpoint_file(path: Path, *, is_mapped: bool = False) -> CheckpointFile:
    """The file of a checkpoint, to read it.

    Args:
        path: A ``.ckpt`` file.
        is_mapped: As for ``CheckpointFile``.

    Returns:
        The file, which is not open yet.

    Raises:
        CheckpointError: ``path`` is a directory with a part from each process.
    """
    if is_sharded(path):
        raise CheckpointError(_sharded(path))
    return CheckpointFile(path, is_mapped=is_mapped)


def consolidated_path(path: Path) -> Path:
    """The one file that is made of the directory ``path``."""
    return path.with_name(f"{path.name.removesuffix('.ckpt')}-consolidated.ckpt")


def consolidation(path: Path, whole: Path) -> dict[str, list[str]]:
    """Arguments of ``python -m`` that make ``whole`` of the directory ``path``, by the strategy that wrote it.

    Lightning has two programs, and each fails on what the other one is for. DeepSpeed's directories are of neither.
    """
    packages = {"FSDPStrategy": "pytorch_lightning", "ModelParallelStrategy": "lightning_fabric"}
    if importlib.util.find_spec("lightning"):
        packages = {"FSDPStrategy": "lightning.pytorch", "ModelParallelStrategy": "lightning.fabric"}
    return {
        strategy: [f"{package}.utilities.consolidate_checkpoint", str(path), "--output_file", str(whole)]
        for strategy, package in packages.items()
    }


def _sharded(path: Path) -> str:
    if parts_of(path):
        return (
            f"{path} is a directory with parts that DeepSpeed wrote, and they are pickles, which can run code. If you "
            "made it yourself, allow it with trust_checkpoint=True (--trust-checkpoint on the command line)"
        )
    commands = consolidation(path, consolidated_path(path)).items()
    return (
        f"{path} is a directory with a part from each process, and its index is a pickle, which can run code. If you "
        "made it yourself, allow it with trust_checkpoint=True (--trust-checkpoint on the command line), or make one "
        "file of it and export that one:\n"
        + "".join(f"  python -m {' '.join(arguments)}   (of {strategy})\n" for strategy, arguments in commands)
        + "FSDPStrategy(state_dict_type='full') and ModelParallelStrategy(save_distributed_checkpoint=False) write one "
        "file at once"
    )


def read_weights(path: Path) -> Checkpoint:
    """Read ``path`` onto the CPU without running any code of it, and whatever classes it names.

    Objects that are neither tensors nor plain values become empty stand-ins, and nothing of them is imported: this
    reads files of the user's own classes where those classes are not there. File and hash are of the same moment, also
    when the name is given to another file meanwhile.

    Returns:
        What the checkpoint holds, other objects than tensors and plain values left empty.

    Raises:
        CheckpointError: The file is missing, damaged or not a Lightning checkpoint.
    """
    with CheckpointFile(path) as file:
        return file.weights


@dataclass(frozen=True)
class FileHash:
    """Hash of a file, and what tells whether the file is still the one that was hashed."""

    sha256: str
    stamp: tuple[int, int, int]
    """Inode, size in bytes, and time of the last change in nanoseconds."""


class CheckpointFile:
    """A checkpoint file that is hashed at most once and read at most once, when it is first asked for.

    It stays open in between: hash and weights are of the same file, also when its name is given to another one.

    Args:
        path: A ``.ckpt`` file.
        known: Its hash, where it has been taken before; counts only if the file has not been changed since then.
        is_mapped: Let weights stay in the file until they are read, so that the system can take their memory back. Not
            in a process that trains: somebody who writes into the file meanwhile, in place of giving its name to
            another one, ends the process. Linux only, elsewhere weights are read.
    """

    def __init__(self, path: Path, known: FileHash | None = None, *, is_mapped: bool = False) -> None:
        self.path = path
        self.is_mapped = is_mapped
        self._known = known
        self._stream: BufferedReader | None = None

    def __enter__(self) -> CheckpointFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    @property
    def sha256(self) -> str:
        """SHA-256 of the file.

        Raises:
            CheckpointError: The file is missing or cannot be read.
        """
        return self.hashed.sha256

    @functools.cached_property
    def hashed(self) -> FileHash:
        """Hash of the file, with what it holds for.

        Raises:
            CheckpointError: The file is missing or cannot be read.
        """
        stream = self._opened()
        try:
            stamp = self._stamp()
            if self._known is not None and self._known.stamp == stamp:
                return self._known
            stream.seek(0)
            return FileHash(sha256_of_stream(stream), stamp)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error

    def check_unchanged(self) -> None:
        """Refuse what was made of weights that stayed in the file, if the file has been written to since it was hashed.

        Raises:
            CheckpointError: It has.
        """
        if self.is_mapped and self._stamp() != self.hashed.stamp:
            raise CheckpointError(
                f"{self.path} was written to while it was exported, so that its weights may be of both. Export it again"
            )

    def _stamp(self) -> tuple[int, int, int]:
        status = os.fstat(self._opened().fileno())
        return status.st_ino, status.st_size, status.st_mtime_ns

    @functools.cached_property
    def weights(self) -> Checkpoint:
        """The checkpoint, as ``read_weights`` reads it.

        Raises:
            CheckpointError: The file is missing, damaged or not a Lightning checkpoint.
        """
        try:
            content = self._loaded(pickle_module=_inert_pickle, weights_only=False)
        # unpickling what is damaged raises anything
        except Exception as error:
            raise self._unreadable(error) from error
        return replace(_checkpoint(self.path, content), sha256=self.sha256)

    def read(self, *, trusted: bool) -> Checkpoint:
        """Read the checkpoint with the objects that it holds, as ``read_checkpoint`` does.

        Returns:
            What the checkpoint holds.

        Raises:
            CheckpointError: The file is missing, damaged, not a Lightning checkpoint, or cannot be read without
                ``trusted``.
        """
        try:
            content = self._loaded(weights_only=True)
        except pickle.UnpicklingError as error:
            if not trusted:
                raise in_need_of_trust(self.path, error) from error
            content = self._trusted()
        # of bytes that are no pickle, or a damaged one, it raises anything: KeyError for a text
        except Exception as error:
            raise self._unreadable(error) from error
        return replace(_checkpoint(self.path, content), sha256=self.sha256)

    def _trusted(self) -> Any:
        try:
            return self._loaded(weights_only=False)
        # unpickling runs whatever the file names
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> CheckpointError:
        if isinstance(error, CheckpointError):
            return error
        # of the open file: the checkpoint itself may have been deleted meanwhile
        size = os.fstat(self._opened().fileno()).st_size
        if size == 0:
            return CheckpointError(f"{self.path} is empty: was the disk full, or the training killed, as it was saved?")
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return CheckpointError(
            f"{self.path} ({size} bytes) cannot be read as a checkpoint: expected a file that Lightning or torch.save "
            f"wrote ({why})"
        )

    def _loaded(self, **options: Any) -> Any:
        stream = self._opened()
        if self.is_mapped and (name := _name_of(stream)):
            _ = self.hashed  # of what is mapped, and of nothing that is written later
            # a file in an older format than zip, a file system that cannot be mapped
            with contextlib.suppress(RuntimeError, OSError, ValueError):
                return torch.load(name, map_location="cpu", mmap=True, **options)
        stream.seek(0)
        return torch.load(stream, map_location="cpu", **options)

    def _opened(self) -> BufferedReader:
        if self._stream is None:
            try:
                self._stream = self.path.open("rb")
            except FileNotFoundError as error:
                raise CheckpointError(f"there is no checkpoint {self.path}") from error
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {error}") from error
        return self._stream


def _name_of(stream: BufferedReader) -> str:
    """A name of the open file, whatever its own name is given to; empty where there is none."""
    name = f"/proc/self/fd/{stream.fileno()}"
    return name if os.path.exists(name) else ""  # noqa: PTH110 -- a link that nothing but open() follows


class _InertUnpickler(pickle.Unpickler):
    """Knows tensors and ordered dicts, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return Inert


_KNOWN = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
}

# torch.load wants a module; it takes the names below from it
_inert_pickle: Any = types.ModuleType("inert_pickle")
_inert_pickle.Unpickler = _InertUnpickler
_inert_pickle.load = lambda stream, **options: _InertUnpickler(stream, **options).load()
_inert_pickle.UnpicklingError = pickle.UnpicklingError


def _checkpoint(path: Path, content: Any) -> Checkpoint:
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        found = f"a dict with {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else type(content)
        way = ""
        if isinstance(content, Mapping) and content and all(isinstance(v, torch.Tensor) for v in content.values()):
            way = (
                ". It seems to be a bare state_dict: in Python, give it to the module with load_state_dict(), and the "
                "module to export_module()"
            )
        raise CheckpointError(
            f"{path} is not a Lightning checkpoint: expected a dict with a state_dict, found {found}{way}"
        )
    scores = tuple(_scores(path.name, content.get("callbacks")))
    known = {key: content[key] for key in HYPERPARAMETERS if key in content}
    return Checkpoint(
        path,
        content["state_dict"],
        content.get("epoch"),
        content.get("global_step"),
        scores=scores,
        hyperparameters=known,
    )


def _scores(name: str, callbacks: Any) -> Iterator[Score]:
    """What each ModelCheckpoint kept the file ``name`` for, of what it had saved in the file.

    The score that a callback saw last may be of another checkpoint: only the list of those it keeps tells.
    """
    for key, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        mode = re.search("'mode': '(min|max)'", str(key))
        kept = state.get("best_k_models") if isinstance(state, Mapping) else None
        monitor = state.get("monitor") if isinstance(kept, Mapping) else None
        if not mode or not isinstance(kept, Mapping) or not isinstance(monitor, str) or not monitor.isprintable():
            continue
        values = [value for path, value in kept.items() if re.split(r"[\\/]", str(path))[-1] == name]
        for value in values[:1]:
            number = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
            if isinstance(number, (int, float)) and math.isfinite(number):
                yield Score(monitor=monitor, mode="max" if mode[1] == "max" else "min", value=float(number))


def in_need_of_trust(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    """The error for a checkpoint that only code of it could read, from what PyTorch's reader says."""
    return CheckpointError(
        f"{path} holds more than weights and plain values, and reading it would run code that it names: "
        f"{_refused(error)}. If you made this file yourself, allow it with trust_checkpoint=True "
        "(--trust-checkpoint on the command line)"
    )


def step_of(path: Path) -> int:
    """Number of optimizer steps that a checkpoint of this run had taken; its weights are not read where that suffices.

    Returns:
        The number of steps.

    Raises:
        CheckpointError: The file is missing, damaged or not a Lightning checkpoint.
    """
    try:
        step = read_metadata(path).global_step
    except CheckpointError:  # of a form that only PyTorch reads; the run itself would read it the same way
        step = read_checkpoint(path, trusted=True).global_step
    return step or 0


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
