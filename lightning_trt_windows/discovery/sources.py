"""Where calls of the exported method can be seen, best source first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from inspect import Signature
from typing import Any, NamedTuple

import torch

from lightning_trt_windows.artifact.manifest import SourceKind
from lightning_trt_windows.discovery.arguments import described, map_batch
from lightning_trt_windows.discovery.evidence import Call
from lightning_trt_windows.discovery.loaders import STAGES, sample_batches, transferred
from lightning_trt_windows.discovery.observations import Observation, SeenTensor, Table
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.discovery.ranges import EXAMPLE
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.containers import leaves

__all__ = ["NO_CALL", "Evidence", "Subject", "evidence_at_hand", "evidence_to_look_for"]

STEPS = {"predict_step": "predict", "validation_step": "val", "test_step": "test", "training_step": "train"}
"""Lightning's step methods, and the loader whose batches each takes."""


NO_CALL = "no call of"
"""What the reason begins with where batches speak for a method that was never called."""


class Subject(NamedTuple):
    """What is to be exported and what can be asked about it."""

    module: torch.nn.Module
    method: str
    signature: Signature
    datamodule: Any
    observer: Observer | None
    takes_batches: bool = True
    """It is a method of the module itself; what a submodule is given, batches do not show."""


class Evidence(NamedTuple):
    """Calls from one source, with what is to be said about them."""

    calls: Sequence[Call]
    kind: SourceKind
    reason: str
    loader_sizes: Mapping[str, Collection[int]]
    notes: tuple[str, ...] = ()


def evidence_at_hand(subject: Subject) -> Evidence | None:
    """Calls that were seen while training."""
    if subject.observer is None or not subject.observer.calls():
        return None
    observations = subject.observer.calls()
    bind = subject.signature.bind
    calls = [Call(o.stage, o.count, o.first, bind(*o.args, **o.kwargs).arguments) for o in observations]
    origin = f", {subject.observer.origin}" if subject.observer.origin else ""
    reason = f"calls of {subject.method}: {_times(observations)}{origin}"
    return Evidence(calls, "observed", reason, subject.observer.loader_sizes)


def evidence_to_look_for(subject: Subject, max_batches: int, silent: list[str]) -> Evidence | None:
    """Batches as calls, or the module's example. ``silent`` collects why a source did not speak."""
    if not subject.takes_batches:
        silent.append(f"batches and examples are given to the module, and do not show what {subject.method} gets of it")
        return None
    example = _example(subject, silent)
    try:
        evidence = next(_batches(subject, max_batches, silent), None)
    except ShapeDiscoveryError as exc:
        if example is None:
            raise
        return example._replace(notes=(f"example_input_array speaks, for the batches cannot: {exc}",))
    difference = _difference(evidence, example) if evidence and example else None
    if difference is None and all(
        p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in subject.signature.parameters.values()
    ):
        difference = "nothing tells which of their entries are its arguments"
    if example is None or (evidence is not None and difference is None):
        return evidence
    if evidence is None:
        return example
    note = f"example_input_array is what {subject.method} takes, not the batches as they are: {difference}"
    return example._replace(loader_sizes=evidence.loader_sizes, notes=(note,))


def _batches(subject: Subject, max_batches: int, silent: list[str]) -> Iterator[Evidence]:
    """Batches seen while training, then batches drawn now; a step method is asked about its own loader first."""
    stage = STEPS.get(subject.method)
    if _is_fitting(subject.module) and subject.observer is not None and subject.observer.batches():
        # setting up a datamodule for another stage may take the data away from the training that runs
        stage = None
    attempts = [(watch, only) for only in ([[stage]] if stage else []) + [list(STAGES)] for watch in (True, False)]
    for watch, only in attempts:
        observer = subject.observer
        notes: tuple[str, ...] = ()
        if not watch:
            sampled = sample_batches(subject.module, subject.datamodule, max_batches=max_batches, stages=only)
            silent += [reason for reason in sampled.silent if reason not in silent]
            observer = sampled.observer
            notes = (f"shapes are those of the {sampled.stage} loader's batches", *sampled.silent, *sampled.notes)
        observations = [] if observer is None else [o for o in observer.batches() if _fits(o.stage, only)]
        if observer is None or not observations:
            continue
        try:
            mapped = [map_batch(subject.signature, o.args[0], subject.method) for o in observations]
        except ShapeDiscoveryError as exc:
            silent.append(str(exc))
            continue
        calls = [Call(o.stage, o.count, o.first, m.arguments) for o, m in zip(observations, mapped)]
        reason = f"{NO_CALL} {subject.method} was seen; in the batches ({_times(observations)}) {mapped[0].how}"
        yield Evidence(calls, "observed", reason, observer.loader_sizes, notes)


def _is_fitting(module: Any) -> bool:
    state = getattr(getattr(module, "_trainer", None), "state", None)
    return str(getattr(getattr(state, "status", None), "value", "")) == "running"


def _fits(stage: str, only: Collection[str]) -> bool:
    return stage in only or (stage == "sanity" and "val" in only) or not stage


def _times(observations: Sequence[Observation]) -> str:
    """``23 in train, 6 in val``; sanity checks only where they are all there is of validation."""
    counts: Counter[str] = Counter()
    for observation in observations:
        counts[observation.stage] += observation.count
    if "val" in counts:
        counts.pop("sanity", None)
    return ", ".join(f"{count} in {stage}" if stage else f"{count}" for stage, count in counts.items())


def _example(subject: Subject, silent: list[str]) -> Evidence | None:
    """What ``example_input_array`` shows, through the same hooks as Lightning's own exporters take it."""
    example = getattr(subject.module, "example_input_array", None)
    if example is None:
        return None
    try:
        example = transferred(subject.module, subject.datamodule, example, 0, [])
    except ShapeDiscoveryError as exc:
        silent.append(f"example_input_array was taken as it is: {exc}")
    args = tuple(example) if isinstance(example, (list, tuple)) else () if isinstance(example, dict) else (example,)
    table = Table()
    table.add(args, example if isinstance(example, dict) else {})
    (observation,) = table.observations(EXAMPLE)
    try:
        bound = subject.signature.bind(*observation.args, **observation.kwargs)
    except TypeError as exc:
        silent.append(f"example_input_array does not fit {described(subject.signature, subject.method)}: {exc}")
        return None
    sizes = {} if subject.observer is None else subject.observer.loader_sizes
    return Evidence([Call(EXAMPLE, 1, 1, bound.arguments)], "example", "shape of example_input_array", sizes)


def _difference(batches: Evidence, example: Evidence) -> str | None:
    """What shows that the batches are worked on before the method gets them; ``None`` where nothing does."""
    seen = {name: leaf for call in batches.calls for name, leaf in leaves(call.arguments)}
    for name, leaf in leaves(example.calls[0].arguments):
        other = seen.get(name)
        if not isinstance(leaf, SeenTensor) or not isinstance(other, SeenTensor):
            continue
        if len(leaf.shape) != len(other.shape) or leaf.dtype != other.dtype:
            return f"{name} is {leaf.dtype}{list(leaf.shape)}, in the batches {other.dtype}{list(other.shape)}"
    return None
