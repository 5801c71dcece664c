"""From a checkpoint of the running training to a job: captured once, and again only where it has to be.

A trace is reused where the module, run on small inputs at the moment of the checkpoint, computes what it computed when
it was captured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.builds.execution import Execution, execute
from lightning_trt_windows.builds.snapshot import Snapshot
from lightning_trt_windows.builds.trace import BareProgram, Trace
from lightning_trt_windows.builds.trace_folder import TraceFolder
from lightning_trt_windows.capture.program import STAND_IN
from lightning_trt_windows.checkpoints.reader import Checkpoint, read_checkpoint
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import CaptureError, CheckpointError, LightningTrtError
from lightning_trt_windows.export.job import Job, SavedProgram
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.modules.alone import alone
from lightning_trt_windows.modules.state import exported_part, original, outside_of_steps, weights_swapped

__all__ = ["Tracer", "same_values"]

_MOST = 8
"""Traces that are kept: a module may go back to what it computed before."""
_ALWAYS = ""
"""Stands for the key of what a fixed module computes."""


class Tracer:
    """Makes a job of each checkpoint.

    Args:
        options: What the user asks for.
        retrace: Capture for every checkpoint, even where the program of an earlier one is still that of the module.
        is_fixed: The module is in no training: nobody changes it between checkpoints, so that one capture serves all.
        has_weights: The module has the weights of the moment. Otherwise a trace serves only where equal notes of what
            ``forward`` runs are the proof.
        trusted: Allow checkpoints to run code while they are read: they are the training's own.
        directory: Where programs are kept meanwhile; by default beside the first checkpoint.
    """

    def __init__(
        self,
        options: ExportOptions,
        *,
        retrace: bool = False,
        is_fixed: bool = False,
        has_weights: bool = True,
        trusted: bool = True,
        directory: Path | None = None,
    ) -> None:
        self.options = options
        self.retrace = retrace
        self.is_fixed = is_fixed
        self.has_weights = has_weights
        self.trusted = trusted
        self.directory = directory
        self.traced = 0
        """How many captures there were."""
        self._traces: list[Trace] = []
        self._folder: TraceFolder | None = None

    def snapshot(self, module: Any, discover: Callable[[], Discovered], *, step: int) -> Snapshot:
        """Take down what ``module`` computes now, and which earlier trace is one of it.

        Args:
            module: The module; it comes back exactly as it was.
            discover: Gives the ranges, as far as they are known.
            step: Number of optimizer steps that have been taken.

        Returns:
            What has to be known of the module later on.
        """
        try:
            found = discover()
        except LightningTrtError as error:
            return Snapshot(step, error)
        if self.is_fixed:
            return Snapshot(step, found, trace=self._trace(_ALWAYS, found))
        try:
            # running it changes as much of PyTorch as a capture does
            with alone("A capture", CaptureError), outside_of_steps():
                now = self._execution(module, found)
                if now is None:
                    return Snapshot(step, found)
                trace = self._trace(now.key, found)
                if trace is not None and not trace.serves(module, now):
                    trace.executions.discard(now.key)
                    trace = None
        except CaptureError as error:
            return Snapshot(step, error)
        return Snapshot(step, found, now.key, now.is_whole, trace)

    def job(self, module: Any, checkpoint: Path, snapshot: Snapshot, twins: tuple[Path, ...]) -> Job:
        """Make the build of ``checkpoint``, a file that ``module``'s training has written.

        Args:
            module: The module in training, or one that was made of the checkpoint.
            checkpoint: The file.
            snapshot: What ``module`` was like when it was saved.
            twins: Checkpoints of the same step, whose artifacts may serve.

        Returns:
            The job, with its program in a file.

        Raises:
            LightningTrtError: There are no ranges, the checkpoint cannot be read or does not fit, or the module cannot
                be captured, as beside a training in another thread.
        """
        with alone("A capture", CaptureError), outside_of_steps():
            return self._job(module, checkpoint, snapshot, twins)

    def _job(self, module: Any, checkpoint: Path, snapshot: Snapshot, twins: tuple[Path, ...]) -> Job:
        found = snapshot.discovered()
        if (trace := self._trace_at(snapshot, found)) is not None:
            self._touch()
            program = SavedProgram(trace.job.program.path, checkpoint, trace.keys)  # type: ignore[union-attr]  # saved
            paths = ArtifactPaths.beside(checkpoint)
            return replace(trace.job, program=program, paths=paths, checkpoint=None, capture_seconds=0.0, twins=twins)
        now = None if self.is_fixed else self._execution(module, found)
        if snapshot.is_past and (now is None or now.key != snapshot.key):
            raise CaptureError(
                f"{checkpoint.name} was written after training had gone on, and {type(module).__name__} "
                + (
                    "cannot be run on small inputs, which would show whether it is still as it was when it was saved"
                    if now is None or snapshot.key is None
                    else "computes something else now than when it was saved"
                )
                + ", so that it cannot be captured as it was. Export it with: "
                f"lightning-trt-windows export {checkpoint.name} --module package.module:Class"
            )
        return self._traced(module, read_checkpoint(checkpoint, trusted=self.trusted), found, now, twins)

    def _execution(self, module: Any, found: Discovered) -> Execution | None:
        try:
            return execute(module, found.inputs, method=found.method or self.options.method)
        # classes of inputs, properties and hooks of the user's; what is wrong with them is for the capture to tell
        except Exception:
            return None

    def _trace(self, key: str, found: Discovered) -> Trace | None:
        """The latest trace of what an execution with this ``key`` computes."""
        fitting = (t for t in reversed(self._traces) if key in t.executions and same_values(found.inputs, t.inputs))
        return None if self.retrace else next(fitting, None)

    def _trace_at(self, snapshot: Snapshot, found: Discovered) -> Trace | None:
        """The trace of the moment of ``snapshot``, its own or one that was captured since."""
        trace = snapshot.trace
        if trace is None and snapshot.is_past and snapshot.is_whole and snapshot.key is not None:
            trace = self._trace(snapshot.key, found)
        if self.retrace or trace is None or not trace.job.program.path.exists():  # type: ignore[union-attr]  # saved
            return None
        return trace

    def _touch(self) -> None:
        """Tell ``sweep`` of other runs in this directory that this one lives."""
        if self._folder is not None:
            self._folder.touch()

    def close(self) -> None:
        """Delete the saved programs."""
        self._traces.clear()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()

    def _traced(
        self,
        module: Any,
        checkpoint: Checkpoint,
        discovered: Discovered,
        now: Execution | None,
        twins: tuple[Path, ...],
    ) -> Job:
        self.traced += 1
        paths = ArtifactPaths.beside(checkpoint.path)
        bare: list[BareProgram] = []

        def keep(program: ExportedProgram) -> None:
            if now is not None and not now.is_whole:
                bare.append(
                    BareProgram(
                        program, _keys_of(module, discovered.method or self.options.method, program), now.device
                    )
                )

        swapped = weights_swapped(
            module,
            checkpoint.state_dict,
            where=checkpoint.path.name,
            strict=module.strict_loading,
            in_training=not self.is_fixed,
        )
        before = None if self.has_weights else frozenset(map(id, module.parameters()))
        with swapped:
            if before is not None:
                _check_all_loaded(module, before, checkpoint.path.name)
            job = prepare(
                module,
                discovered,
                paths,
                self.options,
                checkpoint=checkpoint.record(),
                on_captured=keep,
            )
        program = job.program
        assert isinstance(program, ExportedProgram), "prepare captures"
        saved = job.saved(self._file(self.directory or paths.ep.parent))
        saved = replace(saved, skip_existing=True, twins=twins)
        keys = _keys_of(module, discovered.method or self.options.method, program)
        if not self.retrace and _plainly_loaded(module, program, checkpoint.state_dict, keys):
            self._add(module, saved, discovered, keys, now, bare)
        return saved

    def _add(
        self,
        module: Any,
        saved: Job,
        discovered: Discovered,
        keys: Mapping[str, str],
        now: Execution | None,
        bare: list[BareProgram],
    ) -> None:
        """Keep what was captured for later checkpoints."""
        trace = Trace(saved, dict(discovered.inputs), keys, bare[0] if bare else None)
        if self.is_fixed:
            trace.executions.add(_ALWAYS)
        elif now is None or not (now.is_whole or self.has_weights) or not trace.begin(module, now):
            return
        for known in self._traces:
            if known.is_of_the_same(trace):
                # it computes on another way what it computed before, as with something that it keeps for the next time
                trace.executions |= known.executions
                self._traces.remove(known)
                break
        self._traces = [*self._traces, trace][-_MOST:]

    def _file(self, directory: Path) -> Path:
        if self._folder is None:
            self._folder = TraceFolder(directory)
        return self._folder.path / f"{self.traced}.pt2"


def _keys_of(module: nn.Module, method: str, program: ExportedProgram) -> dict[str, str]:
    """What the program's tensors are called in checkpoints of ``module``: a part of it has shorter names of its own."""
    owner, name = exported_part(module, method)
    owner = original(owner)
    path = next((path for path, child in module.named_modules() if child is owner), "")
    inside = "" if name == "forward" else STAND_IN
    return {key: f"{path}.{key.removeprefix(inside)}".removeprefix(".") for key in program.state_dict}


def _check_all_loaded(module: Any, before: frozenset[int], where: str) -> None:
    """Refuse a module that has kept some of its parameters, as it may with ``strict_loading=False``, if they are empty.

    Args:
        module: The module, with a checkpoint's weights.
        before: Identities of the parameters that it had without them.
        where: The checkpoint's name.

    Raises:
        CheckpointError: It has kept some.
    """
    kept = [name for name, parameter in module.named_parameters() if id(parameter) in before]
    if kept:
        more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
        raise CheckpointError(
            f"{where} has no {', '.join(kept[:3])}{more}, and under the strategy of this training no process need have "
            "them either. Where the module's constructor makes them, export the checkpoint afterwards, with: "
            f"lightning-trt-windows export {where} --module package.module:Class"
        )


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
