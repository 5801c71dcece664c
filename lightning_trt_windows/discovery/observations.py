"""What a call looked like, without its data: descriptions that can be counted, and the trees they stand for."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import torch
from torch.utils import _pytree as pytree

from lightning_trt_windows.modules.containers import Leaf, Parts, join, split_plain

__all__ = ["Context", "Observation", "SeenConstant", "SeenObject", "SeenTensor", "Table", "Tally", "same_constant"]

MOST_SHAPES = 4096
"""Different combinations of shapes remembered per stage; later ones count only where they widen a range."""
MOST_CONSTANTS = 8
"""Different values remembered per flag or number: enough to say that it varies."""
MOST_ITEMS = 256
"""A list of plain values longer than this is data that cannot become a tensor; its items are not looked at."""


@dataclass(frozen=True)
class SeenTensor(Leaf):
    """A tensor as it was seen in one or more calls."""

    shape: tuple[int, ...]
    dtype: str
    """Dtype as torch spells it, without ``torch.``."""
    values: tuple[int, int] | None = None
    """Inclusive (lowest, highest) of an integer tensor in the calls that were looked at."""


@dataclass(frozen=True)
class SeenConstant(Leaf):
    """A flag, number, string or ``None``."""

    values: tuple[Any, ...]
    """The different values, in order of appearance; at most ``MOST_CONSTANTS``."""


@dataclass(frozen=True)
class SeenObject(Leaf):
    """Something that is neither a tensor nor a container that can be taken apart."""

    cls: type
    what: str
    """What it is, for a message: ``"a mypackage.Graph"``."""


@dataclass(frozen=True)
class Observation:
    """Calls that looked the same: same containers, same shapes, same dtypes."""

    stage: str
    """``train``, ``val``, ``sanity``, ``test``, ``predict``, or empty where nobody said."""
    count: int
    """How many."""
    first: int
    """Number of the batch of the first of them within its stage, from 1."""
    args: tuple[Any, ...]
    """Trees of ``SeenTensor``, ``SeenConstant`` and ``SeenObject``."""
    kwargs: Mapping[str, Any]


Description: TypeAlias = tuple[Any, ...]
"""Hashable: the kind of a value, then its class, keys, shape or dtype as the kind has them."""

_TENSOR, _CONSTANT, _OBJECT, _NODE = "tensor", "constant", "object", "node"
# the class is part of a description: True is 1 and 1 is 1.0 to Python, not to a program
_PLAIN = {cls: (_CONSTANT, cls) for cls in (bool, int, float, str, type(None))}
_RARE_CONSTANTS = (bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device, torch.layout, slice, range)


class Context:
    """What a registered container needs to be rebuilt; equal to any other, so the first one seen is kept."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context)

    def __hash__(self) -> int:
        return 0


def describe(value: Any, constants: list[Any], above: tuple[int, ...] = ()) -> Description:
    """A hashable description of ``value`` without its data; flags and numbers go to ``constants``, in order.

    Args:
        value: Anything that a method may be given.
        constants: Is appended to.
        above: Identities of the objects that ``value`` was found in: what points back to one of them ends there.
    """
    cls = type(value)
    if cls is torch.Tensor and value.layout is torch.strided:
        return (_TENSOR, value.shape, value.dtype)
    if cls in _PLAIN:
        constants.append(value)
        return _PLAIN[cls]
    if cls is dict:
        return (_NODE, dict, tuple(value), tuple([describe(v, constants, above) for v in value.values()]))
    if (cls is tuple or cls is list) and len(value) <= MOST_ITEMS:
        # rebuilt without keys
        return (_NODE, cls, (), tuple([describe(v, constants, above) for v in value]))
    if isinstance(value, torch.Tensor):
        with torch._C.DisableTorchFunctionSubclass():  # a subclass may have a word in everything that is asked
            if value.layout is not torch.strided:
                return (_OBJECT, cls, f"a tensor of layout {value.layout}")
            return (_TENSOR, value.shape, value.dtype)
    if isinstance(value, _RARE_CONSTANTS):
        constants.append(value)
        return (_CONSTANT, cls)
    parts = _parts(value, above)
    if parts is None:
        return (_OBJECT, cls, _what(value))
    path = (*above, id(value))
    children = tuple([describe(child, constants, path) for child in parts.children])
    return (_NODE, cls, parts.keys, children, Context(parts.context))


def _parts(value: Any, above: tuple[int, ...]) -> Parts | None:
    """``value`` taken apart; ``None`` where it is a leaf, or as good as one to us."""
    if id(value) in above or _is_long(value):
        return None
    parts = split_plain(value)
    if parts is None or any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(parts.context)):
        # a context that holds tensors would keep a batch alive
        return None
    return parts


def _is_long(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > MOST_ITEMS and not isinstance(value[0], torch.Tensor)


def _what(value: Any) -> str:
    cls = type(value)
    if _is_long(value):
        return f"a {cls.__name__} of {len(value)} values of {type(value[0]).__name__}"
    return f"a {cls.__module__}.{cls.__qualname__}"


def _tensors(value: Any, above: tuple[int, ...] = ()) -> Iterator[torch.Tensor]:
    """The tensors that ``describe`` calls tensors, in the same order."""
    if isinstance(value, torch.Tensor):
        if value.layout is torch.strided:
            yield value
        return
    if isinstance(value, _RARE_CONSTANTS) or type(value) in _PLAIN:
        return
    parts = _parts(value, above)
    for child in () if parts is None else parts.children:
        yield from _tensors(child, (*above, id(value)))


@dataclass
class Tally:
    """Calls with one and the same description."""

    first: int
    count: int = 0
    constants: list[list[Any]] = field(default_factory=list)
    last: list[Any] | None = None
    values: dict[int, list[tuple[Any, Any]]] = field(default_factory=dict)
    """Lowest and highest value by number of the tensor; 0-dimensional tensors where those live on a GPU."""

    def add_constants(self, constants: list[Any]) -> None:
        """Keep the values that are new."""
        if constants == self.last:
            return
        self.last = constants
        if not self.constants:
            self.constants = [[] for _ in constants]
        for known, value in zip(self.constants, constants):
            if len(known) < MOST_CONSTANTS and not any(same_constant(value, other) for other in known):
                known.append(value)


def same_constant(a: Any, b: Any) -> bool:
    """Whether two constants are one to a program: of one class, and not-a-number is itself."""
    return type(a) is type(b) and (bool(a == b) or (a != a and b != b))


class Table:
    """Everything seen in one stage.

    Args:
        as_float32: Note floating-point tensors of 16 bits as float32.
    """

    def __init__(self, *, as_float32: bool = False) -> None:
        self.as_float32 = as_float32
        self.total = 0
        """Calls."""
        self.batch = 0
        """Batches, where somebody counts them."""
        self.tallies: dict[Description, Tally] = {}
        self.bounds: dict[Hashable, list[tuple[int, int]]] | None = None

    def add(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Count one call."""
        self.total += 1
        constants: list[Any] = []
        key: Description = tuple([describe(value, constants) for value in args])
        if kwargs:
            key = (key, tuple([(name, describe(value, constants)) for name, value in kwargs.items()]))
        else:
            key = (key, ())
        if self.as_float32:
            key = _in_float32(key)
        tally = self.tallies.get(key)
        if tally is None:
            if len(self.tallies) >= MOST_SHAPES and not self._widens(key):
                return
            tally = self.tallies[key] = Tally(first=self.batch or self.total)
        tally.count += 1
        if constants:
            tally.add_constants(constants)
        if self.total & (self.total - 1) == 0:
            _look_at_values(tally, (*args, *kwargs.values()))

    def _widens(self, key: Description) -> bool:
        """Whether ``key`` has a structure or a size that the remembered ones do not cover."""
        if self.bounds is None:
            self.bounds = {}
            for known in self.tallies:
                self._cover(known)
        return self._cover(key)

    def _cover(self, key: Description) -> bool:
        assert self.bounds is not None
        sizes: list[int] = []
        skeleton = _skeleton(key, sizes)
        bounds = self.bounds.get(skeleton)
        if bounds is None:
            self.bounds[skeleton] = [(size, size) for size in sizes]
            return True
        wider = [(min(low, size), max(high, size)) for (low, high), size in zip(bounds, sizes)]
        self.bounds[skeleton] = wider
        return wider != bounds

    def most_telling(self, most: int) -> Iterator[tuple[Description, Tally]]:
        """The ``most`` frequent of the calls, and those besides that have a structure or a size beyond theirs."""
        frequent = sorted(self.tallies, key=lambda key: -self.tallies[key].count)
        rest = sorted(frequent[most:], key=_total_size)
        seen = Table()
        # the largest and the smallest first, so that few of those between them widen anything
        for number, key in enumerate((*frequent[:most], *rest[-1:], *rest[:-1])):
            if number < most or seen._widens(key):
                seen.tallies[key] = self.tallies[key]
                yield key, self.tallies[key]

    def observations(self, stage: str) -> Iterator[Observation]:
        """What was counted, in order of first appearance."""
        for (args, kwargs), tally in self.tallies.items():
            leaf = _Restorer(tally)
            yield Observation(
                stage,
                tally.count,
                tally.first,
                tuple(leaf.restore(description) for description in args),
                {name: leaf.restore(description) for name, description in kwargs},
            )


def _in_float32(key: Any) -> Any:
    """``key`` with float32 in place of floating-point types of 16 bits."""
    if type(key) is tuple:
        return tuple([_in_float32(part) for part in key])
    return torch.float32 if key is torch.float16 or key is torch.bfloat16 else key


def _skeleton(key: Any, sizes: list[int]) -> Hashable:
    """``key`` without its sizes, which go to ``sizes``."""
    if isinstance(key, torch.Size):
        sizes.extend(key)
        return len(key)
    if isinstance(key, tuple):
        return tuple(_skeleton(part, sizes) for part in key)
    skeleton: Hashable = key
    return skeleton


def _total_size(key: Description) -> int:
    sizes: list[int] = []
    _skeleton(key, sizes)
    return sum(sizes)


def _look_at_values(tally: Tally, values: Iterable[Any]) -> None:
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        for number, tensor in enumerate(_tensors(tuple(values))):
            if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool or not tensor.numel():
                continue
            if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
                continue
            try:
                low, high = torch.aminmax(tensor.detach())
            except (RuntimeError, NotImplementedError):
                continue  # a dtype or device that cannot tell
            pair = (int(low), int(high)) if tensor.device.type == "cpu" else (low, high)
            tally.values.setdefault(number, []).append(pair)


class _Restorer:
    """Makes trees of seen leaves from the descriptions of one tally, leaf by leaf in order."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.tensors = 0
        self.constants = 0

    def restore(self, description: Description) -> Any:
        kind, *rest = description
        if kind == _NODE:
            cls, keys, children, *context = rest
            restored = [self.restore(child) for child in children]
            return join(Parts(cls, keys, (), context[0].value if context else None), restored)
        if kind == _TENSOR:
            pairs = self.tally.values.get(self.tensors)
            self.tensors += 1
            values = None if not pairs else (min(int(low) for low, _ in pairs), max(int(high) for _, high in pairs))
            return SeenTensor(tuple(rest[0]), str(rest[1]).removeprefix("torch."), values)
        if kind == _CONSTANT:
            self.constants += 1
            return SeenConstant(tuple(self.tally.constants[self.constants - 1]))
        return SeenObject(*rest)
