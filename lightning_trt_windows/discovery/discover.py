"""What goes into the program: the first source that speaks for an input wins.

Explicit inputs, the datamodule's ``input_specs()``, calls of ``forward`` seen while training, batches seen while
training, without training a few batches from a loader, ``example_input_array``: in this order, leaf by leaf.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Signature
from typing import Any

import torch

from lightning_trt_windows.artifact.manifest import Source
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec, InputTree
from lightning_trt_windows.discovery.arguments import described, required
from lightning_trt_windows.discovery.evidence import Derived, derive
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
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.discovery.sources import Evidence, Subject, evidence_at_hand, evidence_to_look_for
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.containers import dotted, leaves, map_leaves, register_containers
from lightning_trt_windows.modules.state import exported_part, original

__all__ = ["Discovered", "HasInputSpecs", "call_arguments", "discover", "leaves", "register_containers"]


@dataclass(frozen=True)
class Discovered:
    """The inputs of the program and where each of them comes from."""

    inputs: Mapping[str, InputTree]
    """By argument of ``forward``, in signature order. ``*args`` is a tuple and ``**kwargs`` a dict under its name;
    ``call_arguments`` makes a call of it."""
    sources: Mapping[str, Source]
    """By dotted name of each tensor."""
    notes: tuple[str, ...] = ()
    """What was decided on the way, a sentence each."""

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
        return Discovered(inputs, sources, (*self.notes, f"{symbol} ({spelled}) is {result}"))

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
            if isinstance(size, DimRange) and size.name == symbol
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

    Raises:
        ShapeDiscoveryError: No evidence for an argument, or contradictory evidence.
        ConfigurationError: ``inputs``, ``input_specs()`` or ``options`` name something that is not there.
    """
    options = options or RangeOptions()
    module = original(module)
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
    derived = None if evidence is None else _derived(evidence, given, method, options)
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


def call_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments that give ``function`` its ``arguments`` by name."""
    bound = inspect.signature(function).bind_partial()
    bound.arguments.update({name: arguments[name] for name in bound.signature.parameters if name in arguments})
    return bound.args, bound.kwargs


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
