"""Artifacts that a job need not build: its own, of an earlier run, or one of a checkpoint with the same weights."""

from __future__ import annotations

from dataclasses import replace

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths, remove_manifest, write_manifest
from lightning_trt_windows.artifact.files import link_or_copy
from lightning_trt_windows.artifact.manifest import CheckpointRecord
from lightning_trt_windows.checkpoints.reader import CheckpointFile
from lightning_trt_windows.errors import CheckpointError, OutputError
from lightning_trt_windows.export.job import Job, existing_artifact, is_of, matches
from lightning_trt_windows.export.onnx_format import remove_onnx, with_onnx

__all__ = ["existing", "reused"]


def reused(job: Job, source: CheckpointFile | None) -> Artifact | None:
    """Find an artifact that serves for ``job``, under its name.

    Args:
        job: The build.
        source: Its checkpoint, where the builder reads one.

    Returns:
        The artifact that is there already, or that of a checkpoint with the same weights, shared under the name of
        this one; ``None`` where it has to be built.
    """
    return _own(job, source) or _of_twin(job, source)


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
