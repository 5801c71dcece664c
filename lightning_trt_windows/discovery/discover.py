"""What goes into the program: the first source that speaks for an input wins.

Explicit inputs, the datamodule's ``input_specs()``, calls of ``forward`` seen while training, batches seen while
training, without training a few batches from a loader, ``example_input_array``: in this order, leaf by leaf.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import Signature
from typing import Any

import torch

from lightning_trt_windows.artifact.manifest import Source
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec, InputTree
from lightning_trt_windows.discovery.arguments import call_arguments, described, left_out, required
from lightning_trt_windows.discovery.axes import symbol_of
from lightning_trt_windows.discovery.evidence import Call, Derived, derive
from lightning_trt_windows.discovery.explicit import (
    Explicit,
    HasInputSpecs,
    disagreements,
    explicit_inputs,
    name_symbols,
    overlay,
    shapes_as_specs,
)
from lightning_trt_windows.discovery.observations import SeenTensor
from lightning_trt_windows.discovery.observer import Observer, called_part
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.discovery.sources import NO_CALL, Evidence, Subject, evidence_at_hand, evidence_to_look_for
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.containers import dotted, leaves, map_leaves
from lightning_trt_windows.modules.state import exported_part, has_forward, original

__all__ = ["Discovered", "HasInputSpecs", "call_arguments", "discover", "leaves"]


@dataclass(frozen=True)
class Discovered:
    """The inputs of the program and where each of them comes from."""

    inputs: Mapping[str, InputTree]
    """Inputs by argument of ``forward``, in signature order. ``*args`` is a tuple and ``**kwargs`` a dict under its
    name; ``call_arguments`` makes a call of it."""
    sources: Mapping[str, Source]
    """Source by dotted name of each tensor."""
    notes: tuple[str, ...] = ()
    """What was decided on the way, a sentence each."""
    method: str = ""
    """The submodule whose inputs they are, where the module has no forward of its own and its steps call that one."""
    otherwise: tuple[Discovered, ...] = field(default=(), compare=False)
    """What else the inputs may be, should these not do: with the labels that a loss needs, where such were left out, or
    what a submodule was given, where ``forward`` was never called and may not take the batches as they are."""

    @property
    def is_guessed(self) -> bool:
        """Whether no call was seen, and the inputs were taken from batches."""
        return any(source.reason.startswith(NO_CALL) for source in self.sources.values())

    def asked_for(self, symbol: str) -> tuple[str, ...]:
        """The axes of a symbol that the user or the datamodule made dynamic, as ``x.0``; the others were inferred."""
        return tuple(
            dotted(name, axis)
            for name, axis in self._axes(symbol)
            if self.sources[name].kind in ("argument", "datamodule")
        )

    def resized(self, symbol: str, change: Callable[[DimRange], DimRange | int], because: str) -> Discovered:
        """The same with every dimension called ``symbol`` replaced by ``change`` of it.

        Args:
            symbol: Name of a dynamic dimension.
            change: Gives a range, or a size to make the dimension static.
            because: Why, for the manifest.

        Returns:
            A copy, with a note of the change.
        """
        axes = set(self._axes(symbol))
        changed: set[str] = set()

        def new_size(size: DimRange | int) -> DimRange | int:
            assert isinstance(size, DimRange), "only dynamic dimensions have a name"
            new = change(size)
            changed.add(f"static at {new}" if isinstance(new, int) else f"now {new}")
            return new

        def replaced(name: str, leaf: Any) -> Any:
            if not isinstance(leaf, InputSpec):
                return leaf
            return replace(leaf, shape=tuple(new_size(d) if (name, i) in axes else d for i, d in enumerate(leaf.shape)))

        inputs = {name: map_leaves(tree, replaced, name) for name, tree in self.inputs.items()}
        result = f"{', '.join(sorted(changed))}: {because}"
        sources = dict(self.sources)
        for name, axis in axes:
            dims = [f"{d}; {result}" if i == axis else d for i, d in enumerate(sources[name].dims)]
            sources[name] = replace(sources[name], dims=tuple(dims))
        spelled = ", ".join(dotted(*axis) for axis in sorted(axes))
        return replace(self, inputs=inputs, sources=sources, notes=(*self.notes, f"{symbol} ({spelled}) is {result}"))

    def range_of(self, symbol: str) -> DimRange | None:
        """The range of the dimensions called ``symbol``."""
        specs = {name: leaf for name, leaf in leaves(self.inputs) if isinstance(leaf, InputSpec)}
        sizes = [specs[name].shape[axis] for name, axis in self._axes(symbol)]
        return next((size for size in sizes if isinstance(size, DimRange)), None)

    def _axes(self, symbol: str) -> list[tuple[str, int]]:
        specs = [(name, leaf) for name, leaf in leaves(self.inputs) if isinstance(leaf, InputSpec)]
        return [
            (name, axis)
            for name, spec in specs
            for axis, size in enumerate(spec.shape)
            if isinstance(size, DimRange) and symbol in (size.name, symbol_of(name, axis, size))
        ]


def discover(
    module: torch.nn.Module,
    *,
    inputs: Mapping[str, InputTree] | None = None,
    datamodule: Any = None,
    observer: Observer | None = None,
    method: str = "forward",
    options: RangeOptions | None = None,
) -> Discovered:
    """Find shape ranges, dtypes and constants for the arguments of ``module.forward``.

    Args:
        module: The LightningModule, or any module.
        inputs: The user's word, by argument; containers may name some of their entries only.
        datamodule: Asked for ``input_specs()`` and, where nothing was observed, for batches.
        observer: What was seen while training.
        method: The method that is exported, or a submodule.
        options: How ranges are derived from what was seen, and how many batches are looked at.

    Returns:
        The inputs, and where each range comes from.

    Raises:
        ShapeDiscoveryError: No evidence for an argument, or contradictory evidence.
        ConfigurationError: ``inputs``, ``input_specs()`` or ``options`` name something that is not there.
    """
    options = options or RangeOptions()
    module = original(module)
    part = ""
    if method == "forward" and not has_forward(module):
        part = method = called_part(module, observer)
        observer = observer.parts[part] if observer is not None else None
    owner, name = exported_part(module, method)
    owner = original(owner)
    signature = inspect.signature(getattr(owner, name))
    silent = list(observer.notes) if observer else []
    subject = Subject(module, method, signature, datamodule, observer, owner is module)
    evidence = evidence_at_hand(subject)
    seen = [item for call in evidence.calls for item in leaves(call.arguments)] if evidence else []
    given = explicit_inputs(shapes_as_specs(inputs, seen), datamodule, signature, method)
    if evidence is None and _incomplete(given, signature):
        evidence = evidence_to_look_for(subject, options.max_batches, silent)
    if part and evidence is not None:
        note = f"{type(module).__name__} has no forward; {part}, which its steps call, is what is exported"
        evidence = evidence._replace(notes=(note, *evidence.notes))
    kept = {*options.keep, *given.names, *given.tree}
    without, targets = (None, ()) if evidence is None else _without_targets(evidence, signature, kept)
    if not targets:
        others: tuple[Discovered, ...] = ()
        if evidence is not None and not given.tree:
            others = (
                *_as_parts_were_called(evidence, subject, options),
                *_as_the_network_takes_them(evidence, subject, options),
            )
        return replace(_discovered(evidence, given, subject, options, silent), method=part, otherwise=others)
    whole: list[Discovered] = []
    with contextlib.suppress(ShapeDiscoveryError):
        whole = [replace(_discovered(evidence, given, subject, options, silent), method=part)]
    found = _discovered(without, given, subject, options, silent)
    note = (
        f"{', '.join(targets)}: only needed for a loss, and left out; RangeOptions(keep={list(targets)!r}) keeps them"
    )
    return replace(found, notes=(*found.notes, note), method=part, otherwise=tuple(whole))


def _as_parts_were_called(evidence: Evidence, subject: Subject, options: RangeOptions) -> Iterator[Discovered]:
    """Inputs of a ``forward`` of one argument that no step has called, of what the steps gave to submodules.

    A step may flatten a batch before the encoder gets it, and leave that to whoever calls ``forward``.
    """
    observer, names = subject.observer, required(subject.signature)
    if observer is None or observer.calls() or len(names) != 1:
        return
    nothing = Explicit({}, {})
    for part, own in observer.parts.items():
        seen = own.calls()
        if not seen or not all(len(o.args) == 1 and isinstance(o.args[0], SeenTensor) and not o.kwargs for o in seen):
            continue
        calls = [Call(o.stage, o.count, o.first, {names[0]: o.args[0]}) for o in seen]
        note = f"no step calls {subject.method}, and the batches do not fit it; {names[0]} is what {part} was given"
        given = Evidence(calls, "observed", f"calls of {part}, for {note}", evidence.loader_sizes, (note,))
        with contextlib.suppress(ShapeDiscoveryError):
            yield _discovered(given, nothing, subject, options, ())


def _as_the_network_takes_them(evidence: Evidence, subject: Subject, options: RangeOptions) -> Iterator[Discovered]:
    """Inputs of a ``forward(*args, **kwargs)`` that passes them on to the one network in the module.

    Which of a batch's entries those are, the network's own ``forward`` says.
    """
    variadic = {parameter.kind: parameter.name for parameter in subject.signature.parameters.values()}
    rest = variadic.pop(inspect.Parameter.VAR_KEYWORD, "")
    networks = [part for part in subject.module.children() if next(part.parameters(), None) is not None]
    if not rest or set(variadic) > {inspect.Parameter.VAR_POSITIONAL} or len(networks) != 1:
        return
    try:
        takes = inspect.signature(networks[0].forward)
    except (TypeError, ValueError):  # of compiled code
        return
    calls = [
        replace(call, arguments={rest: {k: v for k, v in call.arguments[rest].items() if k in takes.parameters}})
        for call in evidence.calls
        if isinstance(call.arguments.get(rest), dict)
    ]
    if not calls or any(not call.arguments[rest] for call in calls):
        return
    note = f"{subject.method} passes on what it is given; its inputs are those that {type(networks[0]).__name__} takes"
    with contextlib.suppress(ShapeDiscoveryError):
        yield _discovered(evidence._replace(calls=calls, notes=(note,)), Explicit({}, {}), subject, options, ())


def _without_targets(
    evidence: Evidence, signature: Signature, kept: Collection[str]
) -> tuple[Evidence, tuple[str, ...]]:
    """``evidence`` without labels and targets that the method can do without, and their names."""
    calls = [replace(call, arguments=left_out(signature, call.arguments, kept)) for call in evidence.calls]
    gone: dict[str, None] = {}
    for before, after in zip(evidence.calls, calls):
        remaining = dict(leaves(after.arguments))
        names = [name for name, leaf in leaves(before.arguments) if isinstance(leaf, SeenTensor)]
        gone.update({name: None for name in names if name not in remaining})
    rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    return evidence._replace(calls=calls), tuple(name.removeprefix(f"{rest}.") for name in gone)


def _discovered(
    evidence: Evidence | None, given: Explicit, subject: Subject, options: RangeOptions, silent: Sequence[str]
) -> Discovered:
    signature, observer = subject.signature, subject.observer
    derived = None if evidence is None else _derived(evidence, given, subject.method, options)
    merged = overlay(given.tree, {} if derived is None else derived.inputs)
    if not any(isinstance(leaf, InputSpec) for _, leaf in leaves(merged)) or not _has_required(merged, signature):
        raise ShapeDiscoveryError(_nothing_found(subject, merged, silent))
    ordered = {name: merged[name] for name in signature.parameters if name in merged}
    ordered = name_symbols(ordered, None if derived is None else derived.ranges)
    sources = dict(given.sources) if derived is None else {**derived.sources, **given.sources}
    notes = (*(evidence.notes if evidence else ()), *(derived.notes if derived else ()))
    return Discovered(
        ordered,
        {name: sources[name] for name, leaf in leaves(ordered) if isinstance(leaf, InputSpec)},
        (*notes, *(observer.notes if observer else ())),
    )


def _has_required(tree: Mapping[str, InputTree], signature: Signature) -> bool:
    return set(required(signature)) <= set(tree)


def _incomplete(given: Explicit, signature: Signature) -> bool:
    """Whether anything is left to find out: an argument without a word, or a container of which a part was named."""
    return not given.sources or not _has_required(given.tree, signature) or given.is_partial


def _derived(evidence: Evidence, given: Explicit, method: str, options: RangeOptions) -> Derived:
    seen = [item for call in evidence.calls for item in leaves(call.arguments)]
    ranks = {(name, len(leaf.shape)) for name, leaf in seen if isinstance(leaf, SeenTensor)}
    rank_of = {name: [rank for other, rank in ranks if other == name] for name, _ in ranks}
    specs = {name: leaf for name, leaf in leaves(given.tree) if isinstance(leaf, InputSpec)}
    derived = derive(
        evidence.calls,
        method=method,
        kind=evidence.kind,
        reason=evidence.reason,
        given=given.names,
        # a spec of another rank than what was seen says nothing about the axes that were
        pinned={axis: size for axis, size in given.axes.items() if rank_of.get(axis[0]) == [len(specs[axis[0]].shape)]},
        loader_sizes=evidence.loader_sizes,
        options=options,
    )
    return replace(derived, notes=(*derived.notes, *disagreements(specs, seen)))


def _nothing_found(subject: Subject, found: Mapping[str, InputTree], silent: Sequence[str]) -> str:
    module, method, signature, datamodule, observer, takes_batches = subject
    missing = [name for name in required(signature) if name not in found] or list(signature.parameters)
    tried = list(silent)
    if observer is None or not (observer.calls() or observer.batches()):
        tried.insert(0, f"no call of {method} and no batch was seen in training")
    if datamodule is None and takes_batches:
        tried.append("there is no datamodule to ask")
    if getattr(module, "example_input_array", None) is None and takes_batches:
        tried.append("example_input_array is not set")
    shown = ", ".join(
        f'"{name}": InputSpec(shape=(DimRange(1, 8, 32), 3, 224, 224), dtype="float32")' for name in missing
    )
    return (
        f"nothing tells the shape of {', '.join(missing) or 'any input'} of "
        f"{type(module).__name__}.{described(signature, method)}:\n"
        + "\n".join(f"  - {line}" for line in tried)
        + f"\nSay it: WindowsExport(inputs={{{shown}}}), with your shapes"
    )
