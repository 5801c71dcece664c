"""From a checkpoint of the running training to a job: captured once, and again only where it has to be."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.artifact.files import TEMPORARY_PREFIX, output_errors, temporary_name
from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.builds.trace_key import description
from lightning_trt_windows.capture.program import STAND_IN
from lightning_trt_windows.checkpoints.reader import Checkpoint, read_checkpoint
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.export.job import Job, SavedProgram
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.modules.state import exported_part, original, outside_of_steps, weights_swapped
from lightning_trt_windows.settings import ExportSettings

__all__ = ["STALE_AFTER", "Tracer", "same_values", "sweep"]

STALE_AFTER = 24 * 3600.0
"""Seconds after which a temporary file that nobody has written to is what a killed process left."""


@dataclass(frozen=True)
class _Trace:
    job: Job
    module: Any
    """Description of the module at that time."""
    inputs: Mapping[str, Any]
    keys: Mapping[str, str]
    """As in ``SavedProgram``."""


class Tracer:
    """Makes a job of each checkpoint.

    Args:
        settings: Of the export.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifest.
        retrace: Capture for every checkpoint, even where the program of the last one can be shown to be the same.
        trusted: Allow checkpoints to run code while they are read: they are the training's own.
        directory: Where programs are kept meanwhile; by default beside the first checkpoint.
    """

    def __init__(
        self,
        settings: ExportSettings,
        *,
        method: str,
        extra: Mapping[str, Any],
        retrace: bool,
        trusted: bool = True,
        directory: Path | None = None,
    ) -> None:
        self.settings = settings
        self.method = method
        self.extra = extra
        self.retrace = retrace
        self.trusted = trusted
        self.directory = directory
        self.traced = 0
        """How many captures there were."""
        self._trace: _Trace | None = None
        self._folder: Path | None = None

    def job(self, module: Any, checkpoint: Path, snapshot: Snapshot, twins: tuple[Path, ...]) -> Job:
        """Make the build of ``checkpoint``, a file that ``module``'s training has written.

        Args:
            module: The module in training, or one that was made of the checkpoint.
            checkpoint: The file.
            snapshot: What ``module`` was like when it was saved.
            twins: Checkpoints of the same step, whose artifacts may serve.

        Raises:
            LightningTrtError: There are no ranges, the checkpoint cannot be read or does not fit, or the module cannot
                be captured.
        """
        with outside_of_steps():
            return self._job(module, checkpoint, snapshot, twins)

    def _job(self, module: Any, checkpoint: Path, snapshot: Snapshot, twins: tuple[Path, ...]) -> Job:
        paths = ArtifactPaths.beside(checkpoint)
        found = snapshot.discovered()
        now = None if self.retrace else snapshot.likeness
        trace = self._trace
        if trace and now is not None and now == trace.module and same_values(found.inputs, trace.inputs):
            self._touch()
            program = SavedProgram(trace.job.program.path, checkpoint, trace.keys)  # type: ignore[union-attr]  # saved
            return replace(trace.job, program=program, paths=paths, checkpoint=None, capture_seconds=0.0, twins=twins)
        if snapshot.is_past and snapshot.likeness != description(module):
            raise CaptureError(
                f"{checkpoint.name} was written after training had gone on, and {type(module).__name__} has other "
                "attributes now than when it was saved, so that it cannot be captured as it was. Export it with: "
                f"lightning-trt-windows export {checkpoint.name} --module package.module:Class"
            )
        return self._traced(module, read_checkpoint(checkpoint, trusted=self.trusted), found, now, twins)

    def _touch(self) -> None:
        """Tell ``sweep`` of other runs in this directory that this one lives."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                os.utime(self._folder)

    def close(self) -> None:
        """Delete the saved programs."""
        self._trace = None
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _traced(
        self, module: Any, checkpoint: Checkpoint, discovered: Discovered, now: Any, twins: tuple[Path, ...]
    ) -> Job:
        self.traced += 1
        paths = ArtifactPaths.beside(checkpoint.path)
        swapped = weights_swapped(
            module, checkpoint.state_dict, where=checkpoint.path.name, strict=module.strict_loading
        )
        with swapped, _trainer_watched(module) as reads:
            job = prepare(
                module,
                discovered,
                paths,
                self.settings,
                method=self.method,
                extra=self.extra,
                checkpoint=checkpoint.record(),
            )
        program = job.program
        assert isinstance(program, ExportedProgram), "prepare captures"
        saved = job.saved(self._file(self.directory or paths.ep.parent))
        saved = replace(saved, skip_existing=True, twins=twins)
        keys = _keys_of(module, discovered.method or self.method, program)
        # where in training it is, is no attribute of the module
        if now is not None and not reads and _plainly_loaded(module, program, checkpoint.state_dict, keys):
            self._trace = _Trace(saved, now, dict(discovered.inputs), keys)
        return saved

    def _file(self, directory: Path) -> Path:
        if self._folder is None:
            self._folder = directory / temporary_name(".traces")
            with output_errors(self._folder, 0):
                self._folder.mkdir()
        return self._folder / f"{self.traced}.pt2"


@contextlib.contextmanager
def _trainer_watched(module: nn.Module) -> Iterator[list[str]]:
    """Note what ``module`` asks its Trainer for in the block: ``self.current_epoch`` and the like go there."""
    reads: list[str] = []
    owners = [(part, part.__dict__["_trainer"]) for part in module.modules() if part.__dict__.get("_trainer")]
    for part, trainer in owners:
        part.__dict__["_trainer"] = _TrainerWatch(trainer, reads)
    try:
        yield reads
    finally:
        for part, trainer in owners:
            part.__dict__["_trainer"] = trainer


class _TrainerWatch:
    """A Trainer that notes what it is asked for."""

    def __init__(self, trainer: Any, reads: list[str]) -> None:
        self.__dict__.update(_watched=trainer, _reads=reads)

    def __getattr__(self, name: str) -> Any:
        self.__dict__["_reads"].append(name)
        return getattr(self.__dict__["_watched"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_watched"], name, value)


def _keys_of(module: nn.Module, method: str, program: ExportedProgram) -> dict[str, str]:
    """What the program's tensors are called in checkpoints of ``module``: a part of it has shorter names of its own."""
    owner, name = exported_part(module, method)
    owner = original(owner)
    path = next((path for path, child in module.named_modules() if child is owner), "")
    inside = "" if name == "forward" else STAND_IN
    return {key: f"{path}.{key.removeprefix(inside)}".removeprefix(".") for key in program.state_dict}


def _plainly_loaded(
    module: nn.Module, program: ExportedProgram, state: Mapping[str, Any], keys: Mapping[str, str]
) -> bool:
    """Whether the program's weights are the checkpoint's, name by name and bit by bit: so are those of the next."""
    if any(m._load_state_dict_pre_hooks or m._load_state_dict_post_hooks for m in module.modules()):
        return False
    return all(
        isinstance(found := state.get(keys[key]), torch.Tensor)
        and found.dtype == tensor.dtype
        and torch.equal(found, tensor.detach().cpu())
        for key, tensor in program.state_dict.items()
    )


def same_values(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both are equal; ``False`` where that cannot be told."""
    try:
        return bool(one == other)
    # constants among the inputs may be tensors or arrays, which do not compare to a bool
    except Exception:
        return False


def sweep(directory: Path) -> None:
    """Delete what killed processes left in ``directory``: temporary files of ours that nobody touched for long."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        try:
            newest = max(p.stat().st_mtime for p in [path, *(path.iterdir() if path.is_dir() else ())])
            if time.time() - newest < STALE_AFTER:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        except OSError:
            continue  # another process was faster
