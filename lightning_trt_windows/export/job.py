"""Builds that can be handed over: a captured program, where it goes, and none of the user's code.

A ``Job`` can be pickled, so that the build runs in another process or on another machine. The program travels in
the pickle, or stands in a file (``SavedProgram``); then its weights may come from a checkpoint, and one trace
serves all checkpoints of a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, read_artifact
from lightning_trt_windows.artifact.manifest import CheckpointRecord, InputRecord, OutputRecord
from lightning_trt_windows.artifact.onnx_files import onnx_issues
from lightning_trt_windows.checkpoints.reader import CheckpointFile, FileHash, read_weights
from lightning_trt_windows.errors import ArtifactError, CheckpointError, UnsupportedFormatError
from lightning_trt_windows.export.saved_program import load_program, save_program
from lightning_trt_windows.modules.dtypes import tensor_bytes
from lightning_trt_windows.settings import ExportSettings

__all__ = [
    "FINGERPRINT",
    "Job",
    "SavedProgram",
    "existing_artifact",
    "fingerprint_of",
    "is_of",
    "matches",
    "take_equal",
]

FINGERPRINT = "request"
"""Key in the manifest's ``backend.options``: SHA-256 of all that the artifact depends on besides the weights."""

_DISTRIBUTIONS = (
    "lightning-trt-windows",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
    "torch",
    "torch-tensorrt",
    "torch-tensorrt-rtx",
)


@dataclass(frozen=True)
class SavedProgram:
    """A captured program in a file."""

    path: Path
    """Written by ``save_program``."""
    weights: Path | None = None
    """Checkpoint whose weights take the place of the program's own."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """What a tensor of the program is called in the checkpoint, where that is another name."""

    def identity(self) -> str | None:
        """Equal for the same file, not written to in between; ``None`` where that cannot be said."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return f"{self.path} {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"

    def load(self, source: CheckpointFile | None = None) -> tuple[ExportedProgram, CheckpointRecord | None]:
        """Read the program.

        Args:
            source: The file of ``weights``, where it is open already.

        Returns:
            The program, and the record of the checkpoint that its weights are from.

        Raises:
            CheckpointError: The checkpoint's weights are not those of the program.
        """
        program = load_program(self.path)
        if self.weights is None:
            return program, None
        checkpoint = read_weights(self.weights) if source is None else source.weights
        for key, own in list(program.state_dict.items()):
            there = self.keys.get(key, key)
            tensor = _fitting(there, own, checkpoint.state_dict.get(there), self.weights.name).detach()
            is_parameter = isinstance(own, torch.nn.Parameter)
            program.state_dict[key] = torch.nn.Parameter(tensor, own.requires_grad) if is_parameter else tensor
        return program, checkpoint.record()


def _fitting(key: str, own: torch.Tensor, found: Any, where: str) -> torch.Tensor:
    if not isinstance(found, torch.Tensor):
        raise CheckpointError(f"{where} has no tensor {key!r}, which the captured program needs")
    if (found.shape, found.dtype) != (own.shape, own.dtype):
        raise CheckpointError(
            f"{key!r} is {found.dtype} {tuple(found.shape)} in {where}, but {own.dtype} {tuple(own.shape)} in the "
            "captured program"
        )
    return found


@dataclass(frozen=True)
class Job:
    """A build that can be handed over: a program and where it goes. It holds no code of the user's."""

    program: ExportedProgram | SavedProgram | None
    """``None`` once it has been compiled: its weights are in the engines, and go."""
    paths: ArtifactPaths
    settings: ExportSettings
    inputs: tuple[InputRecord, ...]
    outputs: tuple[OutputRecord, ...]
    checkpoint: CheckpointRecord | None
    """``None`` where the module came from no checkpoint, or where the builder reads the checkpoint itself."""
    capture_seconds: float
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    """SHA-256 of all that the artifact depends on besides the weights, see ``FINGERPRINT``."""
    values: tuple[tuple[float, float] | None, ...] = ()
    """Lowest and highest value of each input, as far as they are known, to record goldens with."""
    skip_existing: bool = False
    """Give back the artifact that is there already, if it is of the same weights and the same request."""
    twins: tuple[Path, ...] = ()
    """Checkpoints of the same step: where one has the same weights, its artifact is used again."""
    hashed: FileHash | None = None
    """Hash of the checkpoint that the builder reads, where it has been taken already."""
    is_mapped: bool = False
    """Let weights stay in the checkpoint's file until they are read, see ``CheckpointFile``."""

    def source(self) -> AbstractContextManager[CheckpointFile | None]:
        """The checkpoint whose weights the builder reads, if there is one: hashed and read at most once."""
        if not isinstance(self.program, SavedProgram) or self.program.weights is None:
            return contextlib.nullcontext()
        return CheckpointFile(self.program.weights, self.hashed, is_mapped=self.is_mapped)

    def same(self) -> str | None:
        """Equal for builds of one program with one choice of settings, whatever their weights; ``None`` for others."""
        identity = self.program.identity() if isinstance(self.program, SavedProgram) else None
        return identity and f"{identity} {self.settings}"

    def load(self, source: CheckpointFile | None = None) -> tuple[ExportedProgram, CheckpointRecord | None]:
        """Read what is not in memory.

        Args:
            source: What ``source`` gives, where that is open already.

        Returns:
            The program in memory, and the record of its checkpoint.

        Raises:
            CheckpointError: The checkpoint's weights are not those of the program.
        """
        assert self.program is not None, "it has been compiled"
        if isinstance(self.program, ExportedProgram):
            return self.program, self.checkpoint
        program, record = self.program.load(source)
        return program, record or self.checkpoint

    def saved(self, path: Path, *, weights: Path | None = None) -> Job:
        """The same with the program in a file at ``path``, written now."""
        assert isinstance(self.program, ExportedProgram), "it is in a file already"
        save_program(self.program, path)
        return replace(self, program=SavedProgram(path, weights))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if isinstance(self.program, ExportedProgram):
            buffer = io.BytesIO()
            save_program(self.program, buffer)
            state["program"] = buffer.getvalue()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["program"], bytes):
            state = {**state, "program": load_program(io.BytesIO(state["program"]))}
        self.__dict__.update(state)


def take_equal(program: ExportedProgram, state: Mapping[str, Any]) -> None:
    """Put tensors of ``state`` in the place of equal ones of ``program``, which then need not stay in memory."""
    for key, own in list(program.state_dict.items()):
        found = state.get(key)
        if not isinstance(found, torch.Tensor) or found.dtype != own.dtype:
            continue
        if found.is_contiguous() and own.is_contiguous() and torch.equal(found, own.detach()):
            is_parameter = isinstance(own, torch.nn.Parameter)
            program.state_dict[key] = torch.nn.Parameter(found, own.requires_grad) if is_parameter else found


def fingerprint_of(
    program: ExportedProgram,
    settings: ExportSettings,
    inputs: tuple[InputRecord, ...],
    extra: Mapping[str, Any],
) -> str:
    """SHA-256 of the program without its weights, the ranges, the settings and the versions."""
    digest = hashlib.sha256()
    ranges = {str(symbol): str(bounds) for symbol, bounds in program.range_constraints.items()}
    asked = {
        "code": program.graph_module.code,
        "placeholders": [str(node.meta.get("val")) for node in program.graph.nodes if node.op == "placeholder"],
        "ranges": ranges,
        "settings": asdict(settings),
        "inputs": [(i.name, i.dtype, i.min, i.opt, i.max, i.symbols) for i in inputs],
        "extra": dict(extra),
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
    }
    digest.update(json.dumps(asked, sort_keys=True, default=_plain).encode())
    for name in sorted(program.constants):
        constant = program.constants[name]
        digest.update(name.encode())
        digest.update(tensor_bytes(constant) if isinstance(constant, torch.Tensor) else repr(constant).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def matches(artifact: Artifact, fingerprint: str) -> bool:
    """Whether ``artifact`` has this fingerprint and is of a checkpoint."""
    asked = bool(fingerprint) and artifact.manifest.backend.options.get(FINGERPRINT) == fingerprint
    return asked and artifact.manifest.checkpoint is not None


def existing_artifact(paths: ArtifactPaths, fingerprint: str) -> Artifact | None:
    """The complete artifact at ``paths``, if it has this fingerprint; of which checkpoint is not looked at."""
    try:
        artifact = read_artifact(paths.ep)
        complete = artifact.path.stat().st_size == artifact.manifest.ep.size
        missing = list(onnx_issues(artifact, content=False))
    except (ArtifactError, UnsupportedFormatError, OSError):
        return None
    return artifact if complete and matches(artifact, fingerprint) and not missing else None


def is_of(artifact: Artifact, sha256: str) -> bool:
    """Whether ``artifact`` is of the checkpoint with this hash."""
    record = artifact.manifest.checkpoint
    return record is not None and record.sha256 == sha256
