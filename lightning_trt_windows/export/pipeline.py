"""The story: discover ranges, capture, compile, write. Without a Trainer."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, remove_manifest, write_manifest
from lightning_trt_windows.artifact.files import atomic_file, link_or_copy
from lightning_trt_windows.artifact.manifest import (
    BackendRecord,
    CheckpointRecord,
    EngineRecord,
    FileRecord,
    InputRecord,
    Manifest,
    Timings,
)
from lightning_trt_windows.artifact.payload_writer import Joined, join_payloads
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec, InputTree
from lightning_trt_windows.backends import CompiledProgram, get_backend
from lightning_trt_windows.backends.binding_names import ProgramNames
from lightning_trt_windows.capture.constraint_fixes import Suggestion
from lightning_trt_windows.capture.goldens import Recorded, record_goldens
from lightning_trt_windows.capture.io_precision import with_io_precision
from lightning_trt_windows.capture.program import Captured, DimensionError, capture
from lightning_trt_windows.checkpoints.consolidate import local_file
from lightning_trt_windows.checkpoints.metadata import SHAPES, read_metadata
from lightning_trt_windows.checkpoints.reader import CheckpointFile, in_need_of_trust, read_checkpoint
from lightning_trt_windows.discovery.carried import observer_of
from lightning_trt_windows.discovery.discover import Discovered, discover
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import CaptureError, CheckpointError, ConfigurationError, OutputError
from lightning_trt_windows.export.host_check import copied_for_twin, verified_by_twin
from lightning_trt_windows.export.job import (
    FINGERPRINT,
    Job,
    existing_artifact,
    fingerprint_of,
    is_of,
    matches,
)
from lightning_trt_windows.export.number_samples import samples_of
from lightning_trt_windows.export.onnx_format import remove_onnx, warned_without_onnx, with_onnx
from lightning_trt_windows.export.written_check import check_written
from lightning_trt_windows.modules.containers import leaves
from lightning_trt_windows.modules.state import outside_of_steps, random_state_kept
from lightning_trt_windows.progress.events import stage
from lightning_trt_windows.progress.upstream_output import log_beside
from lightning_trt_windows.settings import ExportSettings
from lightning_trt_windows.storage.destination import Destination
from lightning_trt_windows.storage.remote_file import place_of
from lightning_trt_windows.verification.at_export import raise_if_failed, verified

__all__ = [
    "Job",
    "build",
    "existing",
    "export_checkpoint",
    "export_module",
    "observer_of_checkpoint",
    "prepare",
    "rebuilt",
    "settings_of",
]


def export_module(
    module: nn.Module,
    inputs: Mapping[str, InputTree] | None,
    path: str | os.PathLike[str],
    *,
    datamodule: object | None = None,
    ranges: RangeOptions | None = None,
    method: str = "forward",
    extra: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Artifact:
    """Export ``module`` with the weights it holds.

    Args:
        module: A LightningModule or any other module; left exactly as it was.
        inputs: Argument of ``forward`` to ``InputSpec``; what is missing is taken from ``datamodule``, then from
            the module's ``example_input_array``.
        path: Where the artifact goes: ``"m.windows.ep"``; the manifest lands beside it.
        datamodule: A LightningDataModule to take shape ranges from.
        ranges: How ranges are derived from what the datamodule shows.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifest, such as class names.
        **settings: Fields of ``ExportSettings``.

    Raises:
        LightningTrtError: See ``lightning_trt_windows.errors``.
    """
    chosen = settings_of(settings)
    options = RangeOptions.of(ranges)
    discovered = discover(module, inputs=inputs, datamodule=datamodule, method=method, options=options)
    job = prepare(module, discovered, ArtifactPaths.of(path), chosen, method=method, extra=extra)
    return raise_if_failed(warned_without_onnx(build(job)))


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    module_class: type,
    datamodule: object | type | None = None,
    inputs: Mapping[str, InputTree] | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    ranges: RangeOptions | None = None,
    method: str = "forward",
    extra: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
    **settings: Any,
) -> Artifact:
    """Export the weights in a checkpoint file; the artifact is the one the callback would have made.

    Args:
        checkpoint: A ``.ckpt`` file that Lightning wrote, or the URL of one (``s3://...``). With ``trust_checkpoint``
            also a sharded checkpoint, a directory as FSDP and ModelParallel write it: one file is made of it beside it.
        module_class: The LightningModule's class; built from the hyperparameters in the checkpoint.
        datamodule: A LightningDataModule, or its class, to take shape ranges from; by default they are those that the
            checkpoint carries, if ``WindowsExport`` took part in its training.
        inputs: Argument of ``forward`` to ``InputSpec``; goes before what the datamodule or the checkpoint shows.
        output: Directory for the artifact, or its URL; by default the checkpoint's own.
        ranges: How ranges are derived from what the datamodule shows.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifest, such as class names.
        trust_checkpoint: Allow the checkpoint to run code while it is read. Only for files you made yourself.
        **settings: Fields of ``ExportSettings``.

    Raises:
        LightningTrtError: See ``lightning_trt_windows.errors``.
    """
    chosen, options = settings_of(settings), RangeOptions.of(ranges)
    source, place = local_file(place_of(checkpoint), trusted=trust_checkpoint)
    read = read_checkpoint(source, trusted=trust_checkpoint)
    module = rebuilt(module_class, source, trust_checkpoint)
    if isinstance(datamodule, type):
        datamodule = rebuilt(datamodule, source, trust_checkpoint)
    observer = None if datamodule is not None else observer_of_checkpoint(source, module, method)
    discovered = discover(
        module, inputs=inputs, datamodule=datamodule, observer=observer, method=method, options=options
    )
    destination = Destination.of(place, output)
    job = prepare(module, discovered, destination.paths, chosen, method=method, extra=extra, checkpoint=read.record())
    return raise_if_failed(warned_without_onnx(destination.finished(build(job))))


def prepare(
    module: nn.Module,
    discovered: Discovered,
    paths: ArtifactPaths,
    settings: ExportSettings,
    *,
    method: str = "forward",
    extra: Mapping[str, Any] | None = None,
    checkpoint: CheckpointRecord | None = None,
    on_captured: Callable[[ExportedProgram], None] = lambda program: None,
) -> Job:
    """Capture ``module`` with the weights it holds now. Everything after this needs none of the user's code.

    Args:
        module: The module.
        discovered: Its inputs.
        paths: Where the artifact goes.
        settings: Of the export.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifest.
        checkpoint: Where the weights are from.
        on_captured: Is shown the program as the module has it, before settings change its inputs and outputs.

    Raises:
        CaptureError: It cannot be captured.
    """
    started = time.perf_counter()
    stage("capture", paths.ep.name)
    with log_beside(paths):
        captured, discovered = _capture_what_can_be(module, discovered, discovered.method or method)
    on_captured(captured.program)
    captured = with_io_precision(captured, settings)
    inputs = _input_records(captured, discovered)
    return Job(
        program=captured.program,
        paths=paths,
        settings=settings,
        inputs=inputs,
        outputs=captured.outputs,
        checkpoint=checkpoint,
        capture_seconds=time.perf_counter() - started,
        notes=discovered.notes,
        extra=dict(extra or {}),
        fingerprint=fingerprint_of(captured.program, settings, inputs, extra or {}),
        values=tuple(item.spec.values for item in captured.inputs),
    )


def _capture_what_can_be(module: nn.Module, discovered: Discovered, method: str) -> tuple[Captured, Discovered]:
    """Capture without what only a loss needs, if it can be; where ``forward`` reads the labels, with them."""
    try:
        return _capture_narrowed(module, discovered, method)
    except CaptureError:
        if discovered.with_targets is None:
            raise
        # where the labels are not to blame, what is said of the capture without them is said
        with contextlib.suppress(CaptureError):
            return _capture_narrowed(module, discovered.with_targets, method)
        raise


def _capture_narrowed(module: nn.Module, discovered: Discovered, method: str) -> tuple[Captured, Discovered]:
    """Capture; where the module requires less than was inferred, narrow it and note it. What was asked for stands."""
    attempts = 1 + 2 * sum(len(spec.shape) for _, spec in leaves(discovered.inputs) if isinstance(spec, InputSpec))
    for _ in range(attempts):
        try:
            captured = capture(module, discovered.inputs, method=method)
            return captured, replace(discovered, notes=(*discovered.notes, *captured.notes))
        except DimensionError as error:
            before = discovered
            for suggestion in error.suggestions:
                if asked := discovered.asked_for(suggestion.symbol):
                    raise CaptureError(
                        f"{', '.join(asked)} ({suggestion.symbol}, {discovered.range_of(suggestion.symbol)}) cannot be "
                        f"as dynamic as you asked for: {suggestion}. Change its InputSpec, or the module.\n{error}"
                    ) from error
                discovered = _followed(discovered, suggestion)
            if discovered == before:
                raise
    raise CaptureError(f"{type(module).__name__} cannot be traced with any of the shapes that were seen")


def _followed(discovered: Discovered, suggestion: Suggestion) -> Discovered:
    other = discovered.range_of(suggestion.same_as) if suggestion.same_as else None
    if other is not None:
        return discovered.resized(suggestion.symbol, lambda _: other, str(suggestion))
    if suggestion.same_as is not None:
        return discovered
    return discovered.resized(suggestion.symbol, suggestion.applied_to, str(suggestion))


def build(job: Job) -> Artifact:
    """Compile a job's program and write the artifact: the ``.ep``, then the manifest that makes it one."""
    with job.source() as source:
        if job.skip_existing and (artifact := _own(job, source) or _of_twin(job, source)):
            return artifact
        program, checkpoint = job.load(source)
    recorded = record_goldens(program, job.inputs, job.outputs, job.values, job.settings)
    job = replace(job, program=program, checkpoint=checkpoint, notes=(*job.notes, *recorded.notes))
    started = time.perf_counter()
    stage("compile", job.paths.ep.name)
    backend = get_backend(job.settings.backend)
    spare = copied_for_twin(program, job.settings, backend)
    names = ProgramNames(tuple(i.name for i in job.inputs), tuple(o.name for o in job.outputs))
    # lowering and converters draw numbers, and would lower what autocast makes of it
    with log_beside(job.paths), random_state_kept(), outside_of_steps():
        compiled = backend.compile(program, job.settings, samples=samples_of(job), names=names)
    artifact = _written(job, compiled, recorded, started)
    if spare is not None:
        write = lambda twin, paths: _written(replace(job, paths=paths), twin, recorded, started)  # noqa: E731 -- used once
        return verified_by_twin(artifact, spare, job.settings, backend, names, write)
    return verified(artifact, job.settings.verify) if job.settings.verify else artifact


def _written(job: Job, compiled: CompiledProgram, recorded: Recorded, started: float) -> Artifact:
    """Write what was compiled from ``started`` on until now."""
    compiled_at = time.perf_counter()
    # from here to the last line there is no artifact of this name: an older manifest must not vouch for a newer .ep
    remove_manifest(job.paths)
    stage("write", job.paths.ep.name)
    remove_onnx(job.paths)
    try:
        ep, joined = _write_program(job.paths.ep, compiled)
        timings = Timings(
            capture=round(job.capture_seconds, 3),
            compile=round(compiled_at - started, 3),
            write=round(time.perf_counter() - compiled_at, 3),
        )
        manifest = _manifest(job, compiled, ep, joined, timings)
        if compiled.check is not None:
            check_written(Artifact(path=job.paths.ep, manifest=manifest), compiled)
        manifest = replace(manifest, golden=recorded.write(job.paths.golden))
        if "onnx" in job.settings.formats:
            manifest = with_onnx(Artifact(path=job.paths.ep, manifest=manifest), compiled.lines)
        write_manifest(job.paths.manifest, manifest)
    except BaseException:
        # an .ep without a manifest is no artifact, and only takes space
        for path in (job.paths.ep, *job.paths.onnx_files(len(compiled.engines))):
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return Artifact(path=job.paths.ep, manifest=manifest)


def existing(job: Job, *, elsewhere: Artifact | None = None) -> tuple[Artifact | None, Job]:
    """Look for the artifact that ``job`` would build.

    Args:
        job: With its program in a file.
        elsewhere: An artifact that is complete on another file system, to look at in place of the one here.

    Returns:
        The artifact, if it is there; and the job, with the hash of its checkpoint where that had to be taken.
    """
    with job.source() as source:
        found = _own(job, source, elsewhere)
        return found, job if source is None or "hashed" not in vars(source) else replace(job, hashed=source.hashed)


def _own(job: Job, source: CheckpointFile | None, elsewhere: Artifact | None = None) -> Artifact | None:
    """The complete artifact of this job, which is of the same checkpoint, byte by byte."""
    there = elsewhere if elsewhere and matches(elsewhere, job.fingerprint) else None
    found = there if elsewhere else existing_artifact(job.paths, job.fingerprint)
    if found is None:
        return None
    # only here: an artifact of another program is none of ours, whatever its checkpoint is
    sha256 = job.checkpoint.sha256 if job.checkpoint else source.sha256 if source else None
    return found if sha256 and is_of(found, sha256) else None


def _of_twin(job: Job, source: CheckpointFile | None) -> Artifact | None:
    """The artifact of a checkpoint of the same weights, under the name of this one's as well."""
    for twin in job.twins if source else ():
        theirs = existing_artifact(ArtifactPaths.beside(twin), job.fingerprint)
        if theirs is None or source is None:
            continue
        try:
            with CheckpointFile(twin) as other:
                if not (is_of(theirs, other.sha256) and source.weights.same_weights(other.weights)):
                    continue
        except CheckpointError:
            continue  # it has been deleted, or is being written
        try:
            return _shared(theirs, job, source.weights.record())
        except OutputError:
            continue  # the other artifact has been deleted meanwhile
    return None


def _shared(theirs: Artifact, job: Job, record: CheckpointRecord) -> Artifact:
    remove_manifest(job.paths)
    remove_onnx(job.paths)
    link_or_copy(theirs.path, job.paths.ep)
    ep = replace(theirs.manifest.ep, file=job.paths.ep.name)
    golden = theirs.manifest.golden
    if golden is not None:
        link_or_copy(theirs.paths.golden, job.paths.golden)
        golden = replace(golden, file=job.paths.golden.name)
    manifest = replace(theirs.manifest, checkpoint=record, ep=ep, golden=golden, onnx=())
    if theirs.manifest.onnx:  # a model names the file of its engine, so that of another name is another model
        manifest = with_onnx(Artifact(path=job.paths.ep, manifest=manifest))
    write_manifest(job.paths.manifest, manifest)
    return Artifact(path=job.paths.ep, manifest=manifest)


def _write_program(path: Path, compiled: CompiledProgram) -> tuple[FileRecord, dict[str, Joined]]:
    payloads = {token: engine.plan for token, engine in compiled.engines.items()}
    with atomic_file(path) as out, tempfile.TemporaryFile(dir=path.parent) as saved:
        torch.export.save(compiled.program, saved)
        joined = join_payloads(saved, out, payloads)
    return FileRecord(file=path.name, size=out.size, sha256=out.sha256), joined


def _manifest(
    job: Job, compiled: CompiledProgram, ep: FileRecord, joined: Mapping[str, Joined], timings: Timings
) -> Manifest:
    engines = tuple(
        EngineRecord(
            name=engine.name,
            size=engine.plan.nbytes,
            sha256=joined[token].sha256,
            inputs=engine.inputs,
            outputs=engine.outputs,
            location=joined[token].location,
        )
        for token, engine in compiled.engines.items()
    )
    options = {**compiled.options, FINGERPRINT: job.fingerprint} if job.fingerprint else compiled.options
    return Manifest(
        checkpoint=job.checkpoint,
        ep=ep,
        inputs=job.inputs,
        outputs=job.outputs,
        engines=engines,
        fallback_ops=compiled.fallback_ops,
        operators=compiled.operators,
        backend=BackendRecord(
            name=compiled.backend,
            compute_capabilities=compiled.compute_capabilities,
            options=options,
            target=compiled.target,
        ),
        versions={
            "lightning-trt-windows": version("lightning-trt-windows"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            **compiled.versions,
        },
        timings=timings,
        check=compiled.check,
        extra=job.extra,
        notes=(*job.notes, *compiled.notes),
    )


def _input_records(captured: Captured, discovered: Discovered) -> tuple[InputRecord, ...]:
    return tuple(
        InputRecord(
            name=item.name,
            dtype=item.spec.dtype,
            min=item.spec.at("min"),
            opt=item.spec.at("opt"),
            max=item.spec.at("max"),
            symbols=item.symbols,
            multiple_of=tuple(d.multiple_of if isinstance(d, DimRange) else 1 for d in item.spec.shape),
            source=discovered.sources[item.path or item.name],
        )
        for item in captured.inputs
    )


def settings_of(given: Mapping[str, Any]) -> ExportSettings:
    """Keyword arguments as settings; unknown ones are refused by name."""
    known = ExportSettings.__dataclass_fields__
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigurationError(f"unknown setting {', '.join(unknown)}; known are {', '.join(known)}")
    return ExportSettings(**given)


def observer_of_checkpoint(checkpoint: Path, module: Any, method: str) -> Observer | None:
    """What the training that wrote ``checkpoint`` has seen of ``method``; ``None`` where the file does not say."""
    try:
        state = read_metadata(checkpoint).callbacks.get(SHAPES)
    except CheckpointError:
        return None  # of a form that only PyTorch reads: it is older than such states
    if not isinstance(state, dict):
        return None
    return observer_of(state, module, method, origin=f"by the training that wrote {checkpoint.name}")


def rebuilt(cls: type, checkpoint: Path, trusted: bool) -> Any:
    """The LightningModule or LightningDataModule of a checkpoint, as ``load_from_checkpoint`` makes it."""
    if not hasattr(cls, "load_from_checkpoint"):
        raise ConfigurationError(
            f"{cls.__name__} is not a LightningModule or LightningDataModule (it has no load_from_checkpoint). "
            "For a plain module, load the weights yourself and call export_module"
        )
    try:
        return cls.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=not trusted)
    except TypeError as error:
        raise CheckpointError(
            f"{cls.__name__} cannot be built from the hyperparameters in {checkpoint.name}: {error}. "
            "self.save_hyperparameters() in its constructor puts them there"
        ) from error
    except pickle.UnpicklingError as error:
        raise in_need_of_trust(checkpoint, error) from error
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {checkpoint.name} do not fit {cls.__name__}: {error}") from error
