"""The story: discover ranges, capture, compile, write. Without a Trainer."""

from __future__ import annotations

import contextlib
import gc
import os
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
from lightning_trt_windows.artifact.files import atomic_file
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
from lightning_trt_windows.artifact.shapes import DimRange, InputTree
from lightning_trt_windows.backends import CompiledProgram, get_backend
from lightning_trt_windows.backends.binding_names import ProgramNames
from lightning_trt_windows.backends.plan_file import LARGE
from lightning_trt_windows.capture.goldens import Recorded, record_goldens
from lightning_trt_windows.capture.io_precision import with_io_precision
from lightning_trt_windows.capture.program import Captured
from lightning_trt_windows.checkpoints.consolidate import local_file
from lightning_trt_windows.checkpoints.reader import CheckpointFile, checkpoint_file
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import CaptureError, CompileError
from lightning_trt_windows.export.checkpoint_source import CheckpointSource
from lightning_trt_windows.export.host_check import copied_for_twin, verified_by_twin
from lightning_trt_windows.export.job import (
    FINGERPRINT,
    Job,
    fingerprint_of,
    take_equal,
)
from lightning_trt_windows.export.narrowed_capture import capture_narrowed
from lightning_trt_windows.export.number_samples import samples_of
from lightning_trt_windows.export.onnx_format import remove_onnx, warned_without_onnx, with_onnx
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.reuse import reused
from lightning_trt_windows.export.written_check import check_written
from lightning_trt_windows.modules.alone import alone
from lightning_trt_windows.modules.state import outside_of_steps, random_state_kept
from lightning_trt_windows.progress.events import stage
from lightning_trt_windows.progress.upstream_output import log_beside
from lightning_trt_windows.storage.destination import Destination
from lightning_trt_windows.storage.remote_file import place_of
from lightning_trt_windows.verification.at_export import raise_if_failed, verified

__all__ = ["build", "export_checkpoint", "export_from", "export_module", "prepare"]


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

    Returns:
        The artifact.

    Raises:
        ConfigurationError: A setting or an option is unknown, has a value outside its choices, or names what the module
            does not have.
        EnvironmentMismatchError: No backend is installed, or a package has a version that does not fit.
        ShapeDiscoveryError: Nothing tells the shape of an input, or the evidence contradicts itself.
        CaptureError: ``torch.export`` cannot capture the module.
        CompileError: TensorRT builds no engine, or one that would compute something else than the module.
        OutputError: The files cannot be written.
        VerificationError: With ``verify``: the artifact does not compute what the module does.
    """
    options = ExportOptions.of({"inputs": inputs, "ranges": ranges, "method": method, "extra": extra, **settings})
    discovered = options.discover(module, datamodule=datamodule)
    return raise_if_failed(warned_without_onnx(build(prepare(module, discovered, ArtifactPaths.of(path), options))))


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

    Returns:
        The artifact.

    Raises:
        ConfigurationError: A setting or an option is unknown, has a value outside its choices, or names what the module
            does not have.
        EnvironmentMismatchError: No backend is installed, or a package has a version that does not fit.
        ShapeDiscoveryError: Nothing tells the shape of an input, or the evidence contradicts itself.
        CaptureError: ``torch.export`` cannot capture the module.
        CompileError: TensorRT builds no engine, or one that would compute something else than the module.
        CheckpointError: The checkpoint cannot be read, or its weights do not fit the module.
        OutputError: The files cannot be written.
        VerificationError: With ``verify``: the artifact does not compute what the module does.
    """
    options = ExportOptions.of({"inputs": inputs, "ranges": ranges, "method": method, "extra": extra, **settings})
    source = CheckpointSource(module_class, datamodule, trusted=trust_checkpoint)
    return export_from(source, checkpoint, options, output=output)


def export_from(
    source: CheckpointSource,
    checkpoint: str | os.PathLike[str],
    options: ExportOptions,
    *,
    output: str | os.PathLike[str] | None = None,
) -> Artifact:
    """Do what ``export_checkpoint`` does, with its arguments in order.

    Args:
        source: Makes a module of the checkpoint.
        checkpoint: The file, or its URL.
        options: What the user asks for.
        output: Directory for the artifact, or its URL; by default the checkpoint's own.

    Returns:
        The artifact.

    Raises:
        LightningTrtError: As ``export_checkpoint`` raises it.
    """
    path, place = local_file(place_of(checkpoint), trusted=source.trusted)
    destination = Destination.of(place, output)
    with checkpoint_file(path, is_mapped=True) as file:
        # the module lives in the call only, so that its weights can go
        artifact = build(_prepared(source, file, destination.paths, options), file.check_unchanged)
    return raise_if_failed(warned_without_onnx(destination.finished(artifact)))


def _prepared(source: CheckpointSource, file: CheckpointFile, paths: ArtifactPaths, options: ExportOptions) -> Job:
    """Capture the module of a checkpoint, with weights that stay in the file."""
    read = file.read(trusted=source.trusted)
    module, datamodule = source.module(file.path)
    discovered = source.discover(file.path, module, datamodule, options)
    job = prepare(module, discovered, paths, options, checkpoint=read.record())
    assert isinstance(job.program, ExportedProgram), "prepare captures"
    take_equal(job.program, read.state_dict)
    return job


def prepare(
    module: nn.Module,
    discovered: Discovered,
    paths: ArtifactPaths,
    options: ExportOptions,
    *,
    checkpoint: CheckpointRecord | None = None,
    on_captured: Callable[[ExportedProgram], None] = lambda program: None,
) -> Job:
    """Capture ``module`` with the weights it holds now. Everything after this needs none of the user's code.

    Args:
        module: The module.
        discovered: Its inputs.
        paths: Where the artifact goes.
        options: What the user asks for.
        checkpoint: Where the weights are from.
        on_captured: Is shown the program as the module has it, before settings change its inputs and outputs.

    Returns:
        The job, with its program in memory.

    Raises:
        CaptureError: ``torch.export`` cannot capture the module, or a training is active in another thread.
    """
    started = time.perf_counter()
    stage("capture", paths.ep.name)
    with alone("A capture", CaptureError):
        with log_beside(paths):
            captured, discovered = capture_narrowed(module, discovered, discovered.method or options.method)
        on_captured(captured.program)
        captured = with_io_precision(captured, options.settings)
    inputs = _input_records(captured, discovered)
    return Job(
        program=captured.program,
        paths=paths,
        settings=options.settings,
        inputs=inputs,
        outputs=captured.outputs,
        checkpoint=checkpoint,
        capture_seconds=time.perf_counter() - started,
        notes=discovered.notes,
        extra=options.extra,
        fingerprint=fingerprint_of(captured.program, options.settings, inputs, options.extra),
        values=tuple(item.spec.values for item in captured.inputs),
    )


def build(job: Job, check_source: Callable[[], None] = lambda: None) -> Artifact:
    """Compile a job's program and write the artifact: the ``.ep``, then the manifest that makes it one.

    Args:
        job: What to build, where, and with which settings.
        check_source: Called when the weights have been read for the last time, to refuse them.

    Returns:
        The artifact, or the one that was there already and is the same.

    Raises:
        CheckpointError: The checkpoint that the job takes its weights from cannot be read, or does not fit the program.
        CompileError: TensorRT builds no engine, or one that would compute something else than the module, or a training
            is active in another thread.
        OutputError: The files cannot be written.
    """
    with alone("A build", CompileError), job.source() as source:
        if job.skip_existing and (artifact := reused(job, source)):
            return artifact
        program, checkpoint = job.load(source)
        check_source = check_source if source is None else source.check_unchanged
        # nobody else may keep the program: its weights go when they are in engines
        same, job, given = job.same(), replace(job, program=None, checkpoint=checkpoint), [program]
        del program
        return _built(job, given, same, check_source)


@outside_of_steps("cpu")
def _built(job: Job, given: list[ExportedProgram], same: str | None, check_source: Callable[[], None]) -> Artifact:
    """Build the program that is in the list ``given``, and let it go when its weights are in engines."""
    program = given.pop()
    is_large = sum(tensor.nbytes for tensor in program.state_dict.values()) >= LARGE
    if is_large:
        gc.collect()  # modules refer to themselves: that which was captured may be there still
    recorded = record_goldens(program, job.inputs, job.outputs, job.values, job.settings)
    job = replace(job, notes=(*job.notes, *recorded.notes))
    started = time.perf_counter()
    stage("compile", job.paths.ep.name)
    backend = get_backend(job.settings.backend)
    spare = copied_for_twin(program, job.settings, backend)
    names = ProgramNames(tuple(i.name for i in job.inputs), tuple(o.name for o in job.outputs))
    # lowering and converters draw numbers
    with log_beside(job.paths), random_state_kept():
        compiled = backend.compile(
            program, job.settings, samples=samples_of(job), names=names, scratch=job.paths.ep.parent, same=same
        )
    del program
    if is_large:
        gc.collect()
    check_source()
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
