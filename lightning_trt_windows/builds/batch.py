"""Many checkpoints at once: one trace for those that differ in nothing but weights, builds on any executor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.shapes import InputTree
from lightning_trt_windows.builds.copies import Copies, with_place
from lightning_trt_windows.builds.options import BuildOptions
from lightning_trt_windows.builds.places import Place, checkpoints_in
from lightning_trt_windows.builds.queue import Builds, Failure, Outcome
from lightning_trt_windows.builds.tracer import Tracer, same_values
from lightning_trt_windows.checkpoints.consolidate import local_file
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ArtifactError, CheckpointError, ConfigurationError
from lightning_trt_windows.export.checkpoint_source import CheckpointSource
from lightning_trt_windows.export.job import Job
from lightning_trt_windows.export.onnx_format import warned_without_onnx
from lightning_trt_windows.export.reuse import existing
from lightning_trt_windows.progress.events import stage
from lightning_trt_windows.storage.destination import Destination
from lightning_trt_windows.storage.remote_file import RemoteFile, place_of
from lightning_trt_windows.verification.at_export import raise_if_failed

__all__ = ["Export", "Exports", "export_all", "export_checkpoints"]


@dataclass(frozen=True)
class Export:
    """A checkpoint and its artifact."""

    checkpoint: Place
    artifact: Artifact
    existed: bool
    """It was there already, of the same weights, program, ranges, settings and versions."""


@dataclass
class Exports:
    """What became of many checkpoints."""

    made: list[Export] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def artifacts(self) -> list[Artifact]:
        """All that are there now."""
        return [export.artifact for export in self.made]


def export_checkpoints(
    checkpoints: Iterable[str | os.PathLike[str]],
    module_class: type,
    datamodule: object | type | None = None,
    inputs: Mapping[str, InputTree] | None = None,
    *,
    executor: str | Executor = "process",
    output: str | os.PathLike[str] | None = None,
    ranges: RangeOptions | None = None,
    method: str = "forward",
    extra: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
    max_pending: int = 16,
    build_deadline: float | None = None,
    build_memory: float | None = None,
    workers: int | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, doing: None,
    **settings: Any,
) -> Exports:
    """Export many checkpoints; one that fails does not stop the others.

    Args:
        checkpoints: Files, directories and patterns, see ``builds.places.checkpoints_in``.
        module_class: The LightningModule's class; built from the hyperparameters in each checkpoint, captured once
            for all that have the same.
        datamodule: As in ``lightning_trt_windows.export_checkpoint``, and so are ``inputs``, ``ranges``,
            ``method``, ``extra``, ``trust_checkpoint`` and ``settings``.
        inputs: Argument of ``forward`` to InputSpec.
        executor: Where engines are built: any ``concurrent.futures.Executor``, which stays yours to shut down, or a
            name: ``"process"``, ``"inline"``, ``"dask:ADDRESS"``, ``"submitit:FOLDER"``, ``"loky:N"``.
        output: Directory for all artifacts; by default each goes beside its checkpoint.
        ranges: How ranges are derived from what the datamodule shows.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifests.
        trust_checkpoint: Allow checkpoints to run code while they are read.
        max_pending: Builds that the executor is given at a time. Of checkpoints elsewhere (``s3://``) so many are
            copied here at a time, but not more than one for each of the executor's workers and one besides.
        build_deadline: Seconds for one build, with ``"process"``.
        build_memory: Gigabytes for one build, with ``"process"``; by default four fifths of what is available.
        workers: Builds at a time, with ``"process"``; by default one for each 8 processor cores and 8 GB of available
            memory, from 1 to 4.
        report: Called with how many are done, of how many, and what is being done.
        **settings: Fields of ``ExportSettings``.

    Returns:
        The artifacts, and the checkpoints that failed, each with its error.

    Raises:
        ConfigurationError: No checkpoints were named, a setting or option is invalid, or two artifacts would have one
            name in ``output``.
        EnvironmentMismatchError: What a named executor needs is not installed, or does not answer.
    """
    options = BuildOptions.of(
        {
            "inputs": inputs,
            "ranges": ranges,
            "method": method,
            "extra": extra,
            "executor": executor,
            "max_pending": max_pending,
            "build_deadline": build_deadline,
            "build_memory": build_memory,
            "workers": workers,
            **settings,
        }
    )
    source = CheckpointSource(module_class, datamodule, trusted=trust_checkpoint)
    return export_all(source, checkpoints, options, output=output, report=report)


def export_all(
    source: CheckpointSource,
    checkpoints: Iterable[str | os.PathLike[str]],
    options: BuildOptions,
    *,
    output: str | os.PathLike[str] | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, doing: None,
) -> Exports:
    """Do what ``export_checkpoints`` does, with its arguments in order.

    Args:
        source: Makes a module of each checkpoint.
        checkpoints: Files, directories and patterns.
        options: What the user asks for.
        output: Directory for all artifacts; by default each goes beside its checkpoint.
        report: Called with how many are done, of how many, and what is being done.

    Returns:
        The artifacts, and what failed.

    Raises:
        ConfigurationError: No checkpoints were named, or two artifacts would have one name in ``output``.
        EnvironmentMismatchError: What a named executor needs is not installed, or does not answer.
    """
    places = checkpoints_in(checkpoints)
    if not places:
        raise ConfigurationError("no checkpoints were named")
    _refuse_same_names(places, output)
    executor, is_own = options.make_executor()
    work = _Work(source, options, executor, output, report)
    try:
        work.run(places)
    finally:
        stage("closing")
        work.close()
        if is_own:
            executor.shutdown(wait=True, cancel_futures=True)
    return work.exports


def _refuse_same_names(places: Sequence[Place], output: str | os.PathLike[str] | None) -> None:
    names = [place.name for place in places]
    if output is not None and (twice := sorted({name for name in names if names.count(name) > 1})):
        raise ConfigurationError(
            f"output {os.fspath(output)!r}: {', '.join(twice)} would be written more than once; export each run into a "
            "directory of its own, or leave the artifacts beside their checkpoints"
        )


@dataclass(frozen=True)
class _Item:
    place: Place
    checkpoint: Path
    """On this machine."""
    destination: Destination
    folder: Path | None
    """Where its copy and its artifact are on this machine, if they belong elsewhere."""


class _Work:
    """The way of many checkpoints from files to artifacts."""

    def __init__(
        self,
        source: CheckpointSource,
        options: BuildOptions,
        executor: Executor,
        output: str | os.PathLike[str] | None,
        report: Callable[[int, int, str], None],
    ) -> None:
        self.exports = Exports()
        self._source = source
        self._options = options
        self._output = output
        self._report = report
        self._total = 0
        self._builds = Builds(executor, most=options.max_pending, replace_queued=False)
        self._items: dict[Path, _Item] = {}
        self._tracers: list[Tracer] = []
        self._tracer_of: dict[Path, Tracer] = {}
        """The tracer of each checkpoint that is not finished."""
        self._copies = Copies(executor, options.max_pending)
        self._retried: set[Path] = set()
        self._like: Mapping[str, Any] = {}
        """Hyperparameters of the module that is at hand."""
        self._module: tuple[Any, Any] | None = None
        self._discovered: Discovered | None = None
        """What the datamodule shows, which is the same for all checkpoints of one module."""

    def run(self, places: Sequence[Place]) -> None:
        self._total = len(places)
        for place in places:
            self._tell(place.name)
            try:
                self._start(place)
            # this one has none; the others have nothing to do with it
            except Exception as error:
                self.exports.failures.append(Failure(place, error))
            self._collect()
        self._builds.finish(self._outcome, lambda: self._tell(self._builds.doing()))
        order = {place: number for number, place in enumerate(places)}  # not that in which they were finished
        self.exports.made.sort(key=lambda export: order[export.checkpoint])
        self.exports.failures.sort(key=lambda failure: order[failure.checkpoint] if failure.checkpoint else -1)

    def close(self) -> None:
        self._builds.cancel()
        for tracer in self._tracers:
            tracer.close()
        self._copies.close()

    def _start(self, place: Place) -> None:
        folder = self._folder_for(place)
        try:
            checkpoint, named = local_file(place, trusted=self._source.trusted, directory=folder)
            if checkpoint in self._items:  # a sharded checkpoint, and the file that was made of it
                return
            destination = Destination.of(named, self._output, staging=folder)
            item = _Item(place, checkpoint, destination, folder)
            job = self._job(item)
            artifact, job = existing(job, elsewhere=_complete_elsewhere(item))
        except Exception:
            self._copies.remove(folder)
            raise
        if artifact:
            self._done(Export(place, artifact, existed=True))
            self._release(item)
            return
        self._items[checkpoint] = item
        self._builds.add(checkpoint, replace(job, is_mapped=True))

    def _folder_for(self, place: Place) -> Path | None:
        """A directory of this machine for a checkpoint or an artifact that belongs elsewhere, once there is room."""
        output = place if self._output is None else place_of(self._output)
        if not (isinstance(place, RemoteFile) or isinstance(output, RemoteFile)):
            return None
        while self._copies.are_many():
            self._tell(self._builds.doing())
            self._builds.wait_for_one()
            self._collect()
        return self._copies.new()

    def _release(self, item: _Item, *, keep: Iterable[Path] = ()) -> None:
        """``item`` is finished: delete what only it needed."""
        self._tracer_of.pop(item.checkpoint, None)
        self._copies.remove(item.folder, keep=keep)
        needed = [*self._tracer_of.values(), self._tracers[-1]]
        for tracer in [t for t in self._tracers if t not in needed]:
            tracer.close()
            self._tracers.remove(tracer)

    def _job(self, item: _Item, *, anew: bool = False) -> Job:
        hyperparameters = self._source.hyperparameters(item.checkpoint)
        if self._module is None or anew or not same_values(hyperparameters, self._like):
            self._module, self._like = self._source.module(item.checkpoint), hyperparameters
            self._discovered = None
            directory = item.folder.parent if item.folder else item.destination.paths.ep.parent
            self._tracers.append(
                Tracer(
                    self._options,
                    retrace=anew,
                    is_fixed=True,
                    trusted=self._source.trusted,
                    directory=directory,
                )
            )
        module, datamodule = self._module
        found = self._discovered or self._source.discover(item.checkpoint, module, datamodule, self._options)
        self._discovered = None if datamodule is None else found
        tracer = self._tracer_of[item.checkpoint] = self._tracers[-1]
        job = tracer.job(module, item.checkpoint, tracer.snapshot(module, lambda: found, step=-1), ())
        return replace(job, paths=item.destination.paths)

    def _collect(self) -> None:
        for outcome in self._builds.collect():
            self._outcome(outcome)

    def _outcome(self, outcome: Outcome) -> None:
        item, result = self._items[outcome.checkpoint], outcome.result
        if isinstance(result, CheckpointError) and outcome.checkpoint not in self._retried:
            self._retried.add(outcome.checkpoint)
            try:  # its module makes something else of its weights: it has to load them itself
                self._builds.add(outcome.checkpoint, self._job(item, anew=True))
                return
            except Exception as error:
                result = error
        paths = item.destination.paths
        keep: tuple[Path, ...] = ()
        try:
            if isinstance(result, Exception):
                keep = (paths.failed, paths.log)
                raise result
            files = paths.optional(len(result.manifest.engines))
            keep = (paths.ep, paths.manifest, *files)  # what cannot be uploaded
            self._done(Export(item.place, self._checked(item, result), existed=False))
            keep = ()
        except Exception as error:
            self.exports.failures.append(Failure(item.place, with_place(error, item.folder, keep)))
        self._release(item, keep=keep)

    @staticmethod
    def _checked(item: _Item, artifact: Artifact) -> Artifact:
        return raise_if_failed(warned_without_onnx(item.destination.finished(artifact)))

    def _done(self, export: Export) -> None:
        self.exports.made.append(export)

    def _tell(self, doing: str) -> None:
        self._report(len(self.exports.made) + len(self.exports.failures), self._total, doing)


def _complete_elsewhere(item: _Item) -> Artifact | None:
    """The complete artifact at the remote destination."""
    if item.destination.remote is None:
        return None
    try:
        return item.destination.remote.read()
    except ArtifactError:
        return None
