"""What a module's ``forward`` and hooks can reach and write to, beside parameters and buffers: kept for a while.

A capture and a trial run call the module of a training, with the hooks that are on it. Those may count on a plain
object, append to a list of a callback, update a tensor that is no buffer, or draw from a generator of their own. What
they keep of a trace are fake tensors, which end the training that reads them later.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import random
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["reachable_kept", "refill"]

_MOST = 10_000
"""Objects that are looked at. A module that holds a tokenizer or a dataset reaches millions."""
_LONGEST = 50_000
"""Elements of a container, from which on only what was added at its end is taken away."""
_MANY = 1000
"""Elements of a container, from which on what is inside of them is not looked at: a vocabulary, an index of files."""
_LARGEST = 64 << 20
"""Bytes of a tensor or an array, from which on it is not copied."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, types.BuiltinFunctionType)
_NOT_THEIRS = (
    "torch", "lightning", "pytorch_lightning", "lightning_fabric", "lightning_trt_windows",
    "aiohttp", "boto3", "botocore", "clearml", "comet_ml", "dask", "distributed", "fsspec", "google", "grpc", "mlflow",
    "neptune", "ray", "requests", "rich", "sqlalchemy", "tensorboard", "tensorboardX", "tqdm", "urllib3", "wandb",
    "zmq",
)  # fmt: skip
"""Packages whose objects nobody counts on, a Trainer or a device, or which threads of their own go on with: loggers."""
_ENVIRONMENT = ("Trainer", "LightningDataModule", "DataLoader", "Dataset", "Logger")
"""Bases of objects that ``forward`` does not write to, and that reach everything."""
_OF_PYTHON = ("argparse", "collections", "dataclasses", "enum", "functools", "types")
"""Modules of Python's own whose objects hold what others put there."""
_ACCESS = (
    "__iter__", "__len__", "__getitem__", "__setitem__", "__delitem__",
    "keys", "values", "clear", "update", "extend", "pop",
)  # fmt: skip
"""Methods that are used of containers."""
_OF_THREADS = ("Lock", "RLock", "lock", "Condition", "Event", "Semaphore", "Thread", "Queue", "SimpleQueue")
"""Types that show that another thread works on what holds one, whose changes must stay."""
_OWN_OF_MODULES = frozenset(vars(nn.Module())) - {"_forward_hooks", "_forward_pre_hooks"}
"""Attributes that every module has and ``forward`` does not write to, or that are kept by others."""
_LOOKED_THROUGH = 1 << 20
"""Bytes of a tensor, from which on PyTorch's count of its changes is asked in place of its contents."""

Undo = Callable[[], None]


@contextlib.contextmanager
def reachable_kept(module: nn.Module) -> Iterator[None]:
    """Give back what the block changes in objects that ``module`` and its hooks can reach.

    These are lists, dicts, sets, deques, plain objects, variables of closures, global variables that a hook or
    ``forward`` names, tensors and arrays that are written in place, and random number generators; not what is inside of
    extensions, of a Trainer, of datasets, or of objects that threads share.
    """
    found = _Reached(module)
    try:
        yield
    finally:
        for undo in reversed(found.undo):
            # one that fails is the object's own; the others are put back all the same
            with contextlib.suppress(Exception):
                undo()


class _Reached:
    """Walks from a module, and remembers how to put back each object that it comes to."""

    def __init__(self, module: nn.Module) -> None:
        self.undo: list[Undo] = []
        self._kept: list[Any] = []
        """Holds what was seen, whose ``id`` nothing else may get."""
        self._seen: set[int] = set()
        self._waiting: deque[Any] = deque()
        for submodule in module.modules():
            # its attributes, parameters and buffers are kept by others
            self._seen.add(id(submodule))
            self._seen.update(map(id, submodule._parameters.values()))
            self._waiting.extend(v for k, v in vars(submodule).items() if k not in _OWN_OF_MODULES and not _is_plain(v))
            self._waiting.append(getattr(type(submodule), "forward", None))
        self._waiting.extend(nn.modules.module._global_forward_hooks.values())
        self._waiting.extend(nn.modules.module._global_forward_pre_hooks.values())
        while self._waiting and len(self._kept) < _MOST:
            # what an object does when it is looked at is its own affair, and no reason to capture nothing
            with contextlib.suppress(Exception):
                self._look_at(self._waiting.popleft())

    def _look_at(self, value: Any) -> None:
        if _is_plain(value) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, Tensor):
            self._tensor(value)
        elif _is_ordinary(value, (list, deque)):
            self._sequence(value)
        elif _is_ordinary(value, (dict, OrderedDict, defaultdict)):
            self._mapping(value)
        elif _is_ordinary(value, (set,)):
            before = value.copy()
            self.undo.append(lambda: refill(value, before))
            self._waiting.extend(before)
        elif isinstance(value, (tuple, frozenset)):
            if len(value) <= _MANY:
                self._waiting.extend(value)
        elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial, types.CellType)):
            self._callable(value)
        elif isinstance(value, (torch.Generator, random.Random)) or _is_of_numpy(value):
            self._numbers(value)
        elif isinstance(value, nn.Module):
            self._attributes(value)
            self._waiting.extend([*value._buffers.values(), *value._modules.values()])
        elif _is_theirs(value):
            self._attributes(value)

    def _tensor(self, value: Tensor) -> None:
        if value.nbytes > _LARGEST or isinstance(value, nn.Parameter) or type(value) is not Tensor:
            return
        before, counted = value.detach().clone(), None if value.is_inference() else value._version

        def undo() -> None:
            if value.shape != before.shape:
                value.data = before
            elif value.nbytes > _LOOKED_THROUGH and counted is not None and value._version == counted:
                return
            elif not torch.equal(_bits(value), _bits(before)):
                with torch.no_grad():
                    value.copy_(before)

        self.undo.append(undo)

    def _sequence(self, value: Any) -> None:
        length = len(value)
        if length > _LONGEST:
            self.undo.append(lambda: _cut(value, length))
            return
        before = list(value)
        self.undo.append(lambda: refill(value, before))
        if length <= _MANY:
            self._waiting.extend(before)

    def _mapping(self, value: dict[Any, Any]) -> None:
        if len(value) > _LONGEST:
            return
        before = dict(value)
        self.undo.append(lambda: refill(value, before))
        if len(before) <= _MANY:
            self._waiting.extend(before.values())

    def _callable(self, value: Any) -> None:
        if isinstance(value, types.MethodType):
            self._waiting.extend((value.__self__, value.__func__))
        elif isinstance(value, functools.partial):
            self._waiting.extend((value.func, value.args, value.keywords))
        elif isinstance(value, types.CellType):
            try:
                before = value.cell_contents
            except ValueError:  # it is empty
                return
            self.undo.append(lambda: setattr(value, "cell_contents", before))
            self._waiting.append(before)
        elif not _is_foreign(value.__module__):
            self._waiting.extend((value.__closure__ or (), value.__defaults__ or (), value.__kwdefaults__ or {}))
            variables = value.__globals__
            for name in _names(value.__code__):
                if name in variables and not _is_code(variables[name]):
                    before = variables[name]
                    self.undo.append(functools.partial(variables.__setitem__, name, before))
                    self._waiting.append(before)

    def _numbers(self, value: Any) -> None:
        numpy = sys.modules.get("numpy")
        if isinstance(value, torch.Generator):
            drawn = value.get_state()

            def undo() -> None:
                value.set_state(drawn)

            self.undo.append(undo)
        elif isinstance(value, random.Random):
            self.undo.append(functools.partial(value.setstate, value.getstate()))
        elif numpy is None:
            return
        elif isinstance(value, numpy.random.Generator):
            self.undo.append(functools.partial(setattr, value.bit_generator, "state", value.bit_generator.state))
        elif isinstance(value, numpy.random.RandomState):
            self.undo.append(functools.partial(value.set_state, value.get_state()))
        elif value.nbytes <= _LARGEST and value.flags.writeable:
            before = value.copy()
            self.undo.append(lambda: value.__setitem__(..., before))

    def _attributes(self, value: Any) -> None:
        attributes = vars(value) if hasattr(value, "__dict__") else None
        if isinstance(attributes, dict):
            before = dict(attributes)
            self.undo.append(lambda: refill(attributes, before))
            self._waiting.extend(before.values())
        for cls in type(value).__mro__:
            for name in _slots(cls):
                with contextlib.suppress(AttributeError):
                    held = getattr(value, name)
                    self.undo.append(functools.partial(object.__setattr__, value, name, held))
                    self._waiting.append(held)


def _is_ordinary(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a container is one of ``kinds``, or of a class that reads and writes as they do.

    Others make things when they are read, as the table of activations of transformers does.
    """
    kind = next((cls for cls in type(value).__mro__ if cls in kinds), None)
    return kind is not None and all(getattr(type(value), name, None) is getattr(kind, name, None) for name in _ACCESS)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN)


def _is_code(value: Any) -> bool:
    return isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType))


def _is_foreign(module: Any) -> bool:
    return str(module).partition(".")[0] in _NOT_THEIRS


def _is_theirs(value: Any) -> bool:
    """Whether an object is one that a user's code keeps something on."""
    home = type(value).__module__.partition(".")[0]
    if home in _NOT_THEIRS or (home in sys.stdlib_module_names and home not in _OF_PYTHON):
        return False
    if any(cls.__name__ in _ENVIRONMENT for cls in type(value).__mro__):
        return False
    held = vars(value).values() if isinstance(getattr(value, "__dict__", None), dict) else ()
    return not any(type(one).__name__ in _OF_THREADS for one in held)


def _bits(value: Tensor) -> Tensor:
    """Bytes of a tensor, which are equal where numbers that are none are."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def _is_of_numpy(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.random.Generator, numpy.random.RandomState))


def _names(code: types.CodeType) -> Iterator[str]:
    """Global names in a function and in those that are written inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _slots(cls: type) -> Iterator[str]:
    slots = vars(cls).get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        if name not in ("__dict__", "__weakref__"):
            yield f"_{cls.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


def _cut(sequence: Any, length: int) -> None:
    while len(sequence) > length:
        sequence.pop()


def refill(container: Any, before: Any) -> None:
    """Put the contents back, if they are others; the objects in them are not compared.

    Args:
        container: A list, deque, set or dict.
        before: What it held.
    """
    now, then = ([*c.keys(), *c.values()] if isinstance(c, dict) else list(c) for c in (container, before))
    if len(now) != len(then) or not all(map(operator.is_, now, then)):
        container.clear()
        (container.extend if isinstance(container, (list, deque)) else container.update)(before)
