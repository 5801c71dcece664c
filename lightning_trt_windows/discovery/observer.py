"""What ``forward`` receives while training runs: shapes and dtypes, counted, and nothing else.

The observer stands in for the method on the instance (``module.forward``), not in a hook: so it also sees
``self.forward(x)`` and methods that have no hooks. Strategies that lend ``forward`` to ``training_step`` for one call
(DDP, FSDP) replace the stand-in meanwhile, so a redirected ``(batch, batch_idx)`` is never taken for a call of forward.

What ``torch.compile`` has made of a module asks whether that stand-in is still the same object, and is made anew where
it is not. So there is one for each module, which is taken off where the module itself is wanted, and put on again.

A step costs a few microseconds. No tensor is kept and no GPU is waited for: sizes are known to the host, and the range
of integer values is looked at in the 1st, 2nd, 4th, 8th, ... call of each stage only; on a GPU the two numbers stay
there until the ranges are derived.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

from lightning_trt_windows.discovery.observations import MOST_CONSTANTS, Observation, SeenTensor, Table
from lightning_trt_windows.errors import ShapeDiscoveryError
from lightning_trt_windows.modules.containers import leaves
from lightning_trt_windows.modules.state import exported_part, has_forward

__all__ = ["Observer", "batch_sizes", "called_part"]


class Observer:
    """Records, per call of a module's method, the shapes and dtypes of its (nested) arguments.

    Args:
        method: The method to watch, or a submodule (``"net.encoder"``) whose ``forward`` it is.
        as_float32: Note floating-point tensors of 16 bits as float32: training has made 16 bits of module and batches,
            and what is exported has float32 weights.

    Example:
        >>> observer = Observer()
        >>> observer.attach(module)
        >>> observer.stage("train")
        >>> ...  # training
        >>> observer.detach()
    """

    def __init__(self, *, method: str = "forward", as_float32: bool = False) -> None:
        self.method = method
        self.as_float32 = as_float32
        self.notes: list[str] = []
        """What the observer failed at, a sentence each. It never raises into training."""
        self.loader_sizes: dict[str, set[int]] = {}
        """``batch_size`` of the loaders of each stage, where they say."""
        self._module: torch.nn.Module | None = None
        self._recorder: _Recorder | None = None
        """Stands in for the method that is watched: the module's, or a submodule's."""
        self.tables: dict[tuple[str, str], Table] = {}
        """What was counted: calls of the method (``"call"``) and batches (``"batch"``), by stage."""
        self.parts: dict[str, Observer] = {}
        """Observers of the submodules, as long as no call of the method itself has been seen."""
        self._idle: dict[str, Observer] = {}
        """Those that see nothing any more and stay where they are: compiled code asks for their stand-ins."""
        self.origin = ""
        """Where the first of it was seen, if that was not here: ``"by the training that wrote a.ckpt"``."""
        self._enter("")

    def attach(self, module: torch.nn.Module) -> None:
        """Watch ``module`` until ``detach``.

        Raises:
            ConfigurationError: The module has no such method.
        """
        self.detach()
        owner, name = exported_part(module, self.method)
        self._module, self._recorder = module, _put_on(owner, name, self)
        if self.method != "forward":
            return
        parts = list(_parts(module))
        if not self.calls():
            for part in parts:
                if part not in self._idle:
                    self.parts.setdefault(part, self._of_part(part))._watch_part(module, self._stage)
        for part in parts:
            if part in self._idle:
                self._idle[part].attach(module)
                self._idle[part]._idle_from_now_on()

    def _of_part(self, part: str) -> Observer:
        return Observer(method=part, as_float32=self.as_float32)

    def _watch_part(self, module: torch.nn.Module, stage: str) -> None:
        self._enter(stage)
        self.attach(module)

    def _drop_parts(self) -> None:
        for name, part in self.parts.items():
            if part._idle_from_now_on():
                self._idle[name] = part
            else:
                part.detach()
        self.parts = {}

    def _idle_from_now_on(self) -> bool:
        """Record nothing more; whether the stand-in has to stay, because compiled code refers to it."""
        if self._recorder is None:
            return False
        self._recorder.observer = None
        return weakref.getweakrefcount(self._recorder) > 0

    def detach(self) -> None:
        """Leave the module as it was found. What has been recorded stays."""
        for part in (*self.parts.values(), *self._idle.values()):
            part.detach()
        recorder, self._recorder, self._module = self._recorder, None, None
        if recorder is not None:
            recorder.take_off()

    @contextlib.contextmanager
    def looking_away(self) -> Iterator[None]:
        """What happens in the block to the module is not training: it is as it was found, and then watched again.

        Where it is not watched, it is not watched afterwards either.
        """
        module = self._module
        self.detach()
        try:
            yield
        finally:
            if module is not None:
                self.attach(module)

    def stage(self, name: str) -> None:
        """Say which loader feeds from now on: ``train``, ``val``, ``sanity``, ``test`` or ``predict``."""
        if name == self._stage:
            return
        self._enter(name)
        if name and name not in self.loader_sizes:
            self._guard(self._read_loaders, name)
        for part in self.parts.values():
            part._enter(name)
            part.loader_sizes = self.loader_sizes

    def batch(self, batch: Any) -> None:
        """Record the structure of the batch of this step: evidence where ``forward`` itself is never called."""
        self._calls.batch += 1
        for part in self.parts.values():
            part._calls.batch += 1
        if not self._calls.total:
            self._guard(self._batches.add, (batch,), {})

    def calls(self) -> tuple[Observation, ...]:
        """What the method received, by stage.

        Calls before the first ``stage`` count only where there is no other: summaries and graph loggers run
        ``forward`` on made-up examples.
        """
        return self._observations("call")

    def batches(self) -> tuple[Observation, ...]:
        """The batches, each as the single positional argument of an observation."""
        return self._observations("batch")

    @property
    def home(self) -> str:
        """Module in which the class of what is watched was defined."""
        return "" if self._module is None else type(self._module).__module__

    def go_on_with(
        self, tables: dict[tuple[str, str], Table], loader_sizes: dict[str, set[int]], parts: dict[str, Observer]
    ) -> None:
        """Count on from what another observer and its parts have seen, in place of what this one has."""
        # the parts until now leave the module, and those that follow them take their places
        with self.looking_away():
            self.tables, self.loader_sizes, self.parts = tables, loader_sizes, parts
            for table in tables.values():
                table.as_float32 = self.as_float32
            self._enter(self._stage)

    def _observations(self, kind: str) -> tuple[Observation, ...]:
        tables = {stage: table for (k, stage), table in self.tables.items() if k == kind and table.total}
        if len(tables) > 1:
            tables.pop("", None)
        return tuple(o for stage, table in tables.items() for o in table.observations(stage))

    def _enter(self, stage: str) -> None:
        self._stage = stage
        self._calls = self.tables.setdefault(("call", stage), Table(as_float32=self.as_float32))
        self._batches = self.tables.setdefault(("batch", stage), Table(as_float32=self.as_float32))

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # inlined _guard: this is the hot path
        try:
            self._calls.add(args, kwargs)
            if self.parts and self._stage:
                self._drop_parts()
        except Exception as exc:  # whatever a user's class raises when looked at, training goes on
            self._failed(exc)

    def _guard(self, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except Exception as exc:  # as above
            self._failed(exc)

    def _failed(self, exc: Exception) -> None:
        note = f"a call of {self.method} was not recorded: {type(exc).__name__}: {exc}"
        if note not in self.notes and len(self.notes) < MOST_CONSTANTS:
            self.notes.append(note)

    def _read_loaders(self, stage: str) -> None:
        trainer = getattr(self._module, "_trainer", None)
        attribute = {"train": "train_dataloader", "sanity": "val_dataloaders"}.get(stage, f"{stage}_dataloaders")
        sizes = set(batch_sizes(getattr(trainer, attribute, None)))
        if sizes:
            self.loader_sizes[stage] = sizes


def batch_sizes(loaders: Any) -> Iterator[int]:
    """``batch_size`` of a loader or of every loader in a list or dict; nothing is iterated."""
    # a CombinedLoader holds them
    loaders = getattr(loaders, "iterables", loaders)
    if isinstance(loaders, (dict, list, tuple)):
        for loader in loaders.values() if isinstance(loaders, dict) else loaders:
            yield from batch_sizes(loader)
        return
    size = getattr(loaders, "batch_size", None)
    if size is None:
        size = getattr(getattr(loaders, "batch_sampler", None), "batch_size", None)
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        yield size


def _parts(module: torch.nn.Module, path: str = "") -> Iterator[str]:
    """The submodules that a step may call: those with weights, and those inside of ModuleList and ModuleDict."""
    for name, child in module.named_children():
        if isinstance(child, (torch.nn.ModuleList, torch.nn.ModuleDict)):
            yield from _parts(child, f"{path}{name}.")
        elif isinstance(child, torch.jit.ScriptModule) or "forward" in vars(child) or not has_forward(child):
            continue
        elif next(child.parameters(), None) is not None:
            yield f"{path}{name}"


def called_part(module: torch.nn.Module, observer: Observer | None) -> str:
    """The submodule that the steps of a module without ``forward`` call with tensors.

    Returns:
        Its dotted name.

    Raises:
        ShapeDiscoveryError: The steps call no submodule, or several; the message names them.
    """
    name = type(module).__name__
    seen = {} if observer is None else {part: own.calls() for part, own in observer.parts.items()}
    seen = {part: calls for part, calls in seen.items() if any(_has_tensors(call) for call in calls)}
    # what evaluation calls is what will be deployed
    evaluated = {part: calls for part, calls in seen.items() if any(c.stage not in ("train", "") for c in calls)}
    called = list(evaluated or seen)
    if len(called) == 1:
        return called[0]
    if called:
        raise ShapeDiscoveryError(
            f"{name} has no forward, and its steps call {' and '.join(called)}. Write a forward that calls them as the "
            f"product will, or export one of them: {' or '.join(f'method={part!r}' for part in called)}"
        )
    parts = list(_parts(module))
    what = f"export a submodule ({' or '.join(f'method={p!r}' for p in parts[:4])})" if parts else "name another method"
    raise ShapeDiscoveryError(
        f"{name} has no forward, and no call of a submodule was seen. Write a forward, or {what} and give its inputs"
    )


def _has_tensors(observation: Observation) -> bool:
    trees = {"": observation.args, "kwargs": dict(observation.kwargs)}
    return any(isinstance(leaf, SeenTensor) for _, leaf in leaves(trees))


class _Recorder:
    """Stands in for a bound method and can be told from it by nobody who does not ask for its type.

    ``__class__`` and every attribute are the method's, so that ``inspect``, ``torch.jit`` and ``torch.compile`` find
    its signature and source. A copied or pickled module gets the plain method: what its copies do is not training.
    Called as the type of a method is, with a function and an object, the type makes a method.
    """

    observer: Observer | None
    """Is told of calls; nobody is while the module is not watched."""
    place: tuple[weakref.ref[torch.nn.Module], str]
    """The module, and the name of the method there."""
    was_on_instance: bool
    weakly: Callable[[], Any]
    """Gives what it stands for, or ``None`` where that is gone, while it is taken off."""

    def __new__(cls, function: Callable[..., Any], instance: Any) -> Any:
        """Make a bound method, which is what ``type(module.forward)`` makes, and ``weakref.WeakMethod``."""
        return types.MethodType(function, instance)

    @classmethod
    def of(cls, owner: torch.nn.Module, name: str) -> _Recorder:
        """A stand-in for method ``name`` of ``owner``, which it is not put on."""
        self: _Recorder = object.__new__(cls)
        functools.update_wrapper(self, getattr(owner, name))
        self.observer = None
        self.place = weakref.ref(owner), name
        self.was_on_instance = name in owner.__dict__
        return self

    def take_off(self) -> None:
        """Leave the module as it was found, and be there when it is watched again."""
        self.observer = None
        owner, name = self.place[0](), self.place[1]
        # anything else means that somebody replaced the method meanwhile, and it is his
        if owner is None or owner.__dict__.get(name) is not self:
            return
        original = self.__wrapped__
        if self.was_on_instance:
            owner.__dict__[name] = original
        else:
            del owner.__dict__[name]
        try:
            # who keeps it until the module is gone must not keep the module
            self.weakly = weakref.ref(original) if self.was_on_instance else weakref.WeakMethod(original)
            _taken_off.setdefault(owner, {})[name] = self
        except TypeError:  # not a method, or of a type without weak references
            return
        del self.__dict__["__wrapped__"]

    def put_on_again(self, owner: torch.nn.Module, name: str) -> bool:
        """Stand in for what ``owner`` has as ``name``, if that is what it was the last time; whether it is."""
        original, before = getattr(owner, name), self.weakly()
        on_instance = name in owner.__dict__
        if on_instance is not self.was_on_instance or self.place[0]() is not owner:
            return False
        if not (original is before if on_instance else type(original) is types.MethodType and original == before):
            return False
        self.__dict__["__wrapped__"] = original
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # traced sizes are symbols, and a compiled step must hold nothing of ours, nor depend on who is told
        if not (torch.compiler.is_compiling() or torch._C._get_tracing_state()) and (observer := self.observer):
            try:
                observer._record(args, kwargs)
            except Exception:  # it catches what a user's classes raise; this is for faults of its own
                observer.notes.append(f"calls of {observer.method} were not recorded")
        return self.__wrapped__(*args, **kwargs)

    @property  # type: ignore[misc]  # a class attribute to mypy; proxies answer for what they stand for
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        if name != "__wrapped__":
            return getattr(self.__wrapped__, name)
        # taken off, and somebody has kept it
        original = self.__dict__["weakly"]()
        if original is None:
            raise ReferenceError("the module whose method this was no longer exists")
        return original

    def __eq__(self, other: object) -> Any:
        return self is other or self.__wrapped__ == (other.__wrapped__ if type(other) is _Recorder else other)

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce__(self) -> Any:
        return self.__wrapped__.__reduce__()


_taken_off: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, _Recorder]] = weakref.WeakKeyDictionary()
"""The stand-ins of modules that are not watched now, by the name of the method: each is put on again."""


def _put_on(owner: torch.nn.Module, name: str, observer: Observer) -> _Recorder:
    """Let ``observer`` know of calls of method ``name`` of ``owner``, by the stand-in that it had before, if it had."""
    recorder = _taken_off.get(owner, {}).pop(name, None)
    if recorder is None or not recorder.put_on_again(owner, name):
        recorder = _Recorder.of(owner, name)
    # past nn.Module.__setattr__, which user classes override
    owner.__dict__[name] = recorder
    recorder.observer = observer
    return recorder
