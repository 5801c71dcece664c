"""How a program is called, and how the module: classes of the user's on one side, dicts and tensors on the other.

``torch.export`` takes containers that it knows and that a file can name. The program is given dicts by field name in
place of the user's batch classes, which is also what a PC that does not have these classes hands over. While a module
is traced, ``adapted`` stands in for its ``forward``: it makes the objects that ``forward`` expects, and makes of what
that returns what a program can return.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, Signature
from typing import Any

import torch
from torch import nn
from torch.distributions import Distribution

from lightning_trt_windows.artifact.shapes import InputSpec
from lightning_trt_windows.discovery.arguments import call_arguments
from lightning_trt_windows.modules.containers import (
    Parts,
    dotted,
    is_named_tuple,
    is_registered,
    leaves,
    rebuilt,
    split,
)
from lightning_trt_windows.modules.registration import can_be_saved
from lightning_trt_windows.modules.varying import Varying, unread

__all__ = ["STAND_IN", "Calling", "Method", "caches_off"]

STAND_IN = "module."
"""What names of tensors begin with in programs of a method other than ``forward``."""


class Method(nn.Module):
    """Stands for a module whose ``forward`` is another of its methods; it is called ``STAND_IN`` here."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method
        self.forward = getattr(module, method)


class Calling:
    """Two ways of one call.

    Args:
        function: The method that is exported, bound.
        inputs: Trees by argument, as they were discovered.
    """

    def __init__(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
        self.function = function
        self.signature = inspect.signature(function)
        self.templates = {name: inputs[name] for name in self.signature.parameters if name in inputs}
        self.hidden = {name: tree for name, tree in self.templates.items() if isinstance(tree, Varying)}
        self.notes: list[str] = []
        """What was left out of the outputs, a sentence each."""

    @property
    def is_plain(self) -> bool:
        """Whether the method takes what the program takes."""
        variadic = any(self.signature.parameters[name].kind in _VARIADIC for name in self.templates)
        return not self.hidden and not variadic and all(map(_is_plain, self.templates.values()))

    def program_arguments(self, trees: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the program, from trees by argument."""
        shown: dict[str, Any] = {}
        for name, tree in trees.items():
            if name in self.hidden:
                continue
            if self.signature.parameters[name].kind in _VARIADIC:
                parts = split(tree)
                pairs = zip(parts.keys, parts.children) if parts is not None else ()
                for key, child in (pair for pair in pairs if not isinstance(pair[1], Varying)):
                    shown[self.names[dotted(name, key)]] = _simple(child)
            else:
                shown[name] = _simple(tree)
        return call_arguments(self._program_signature, shown)

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """What the entries of ``*args`` and ``**kwargs`` are called as arguments of the program, by dotted name."""
        names: dict[str, str] = {}
        for name, kind, key in self._entries():
            names[dotted(name, key)] = str(key) if kind is Parameter.VAR_KEYWORD else _free(name, key, self.signature)
        return names

    def _entries(self) -> Iterator[tuple[str, Any, Any]]:
        for parameter in self.signature.parameters.values():
            parts = split(self.templates.get(parameter.name)) if parameter.kind in _VARIADIC else None
            for key in parts.keys if parts is not None else ():
                yield parameter.name, parameter.kind, key

    @functools.cached_property
    def _program_signature(self) -> Signature:
        """Every entry of ``*args`` and ``**kwargs`` is an argument of its own: PyTorch's guards go by their names."""
        kept: list[Parameter] = []
        for name, parameter in self.signature.parameters.items():
            if parameter.kind not in _VARIADIC:
                kept += [parameter] if name not in self.hidden else []
                continue
            by_name = parameter.kind is Parameter.VAR_KEYWORD
            kind = Parameter.KEYWORD_ONLY if by_name else Parameter.POSITIONAL_OR_KEYWORD
            names = [self.names[dotted(name, key)] for other, _, key in self._entries() if other == name]
            # one without a default may not follow one that has a default
            kept += [Parameter(own, kind, default=None) for own in names]
        return self.signature.replace(parameters=kept)

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the method, of those of the program."""
        arguments = {name: _restored(self.templates[name], given[name]) for name in self.templates if name in given}
        for name, kind, key in self._entries():
            parts = split(self.templates[name])
            assert parts is not None, "it has entries"
            entry = _restored(dict(zip(parts.keys, parts.children))[key], given.get(self.names[dotted(name, key)]))
            if kind is Parameter.VAR_KEYWORD:
                arguments.setdefault(name, {})[key] = entry
            else:
                arguments[name] = (*arguments.get(name, ()), entry)
        return {**arguments, **{name: unread(tree) for name, tree in self.hidden.items()}}

    @contextlib.contextmanager
    def adapted(self, target: nn.Module) -> Iterator[None]:
        """Let ``target`` be called as the program will be."""

        @functools.wraps(self.function)
        def forward(*args: Any, **kwargs: Any) -> Any:
            given = self._program_signature.bind(*args, **kwargs).arguments
            args, kwargs = _bound(self.signature, self._arguments(given))
            return self._simplified(self.function(*args, **kwargs), "output")

        forward.__signature__ = self._program_signature  # type: ignore[attr-defined]  # what inspect looks for
        own = target.__dict__
        before = own.get("forward")
        # past nn.Module.__setattr__, which user classes override
        own["forward"] = forward
        try:
            yield
        finally:
            if before is None:
                del own["forward"]
            else:
                own["forward"] = before

    def _simplified(self, value: Any, name: str) -> Any:
        """``value`` as a program can return it: what ``topk`` returns is a tuple, caches are left out."""
        if isinstance(value, (torch.Tensor, str, int, float, type(None))):
            return value
        if _is_cache(type(value)):
            self.notes.append(f"{name} is a {type(value).__name__}, which no engine keeps; it is left out")
            return None
        if isinstance(value, Distribution):
            parameters = _parameters_of(value)
            self.notes.append(f"{name} is a {type(value).__name__}; its parameters are what is returned")
            return {key: self._simplified(child, dotted(name, key)) for key, child in parameters.items()}
        if type(value).__module__ == "torch.return_types":
            return tuple(value)
        parts = split(value)
        if parts is None:
            return value
        children = [self._simplified(child, dotted(name, key)) for key, child in zip(parts.keys, parts.children)]
        if is_registered(parts.cls) and not can_be_saved(parts.cls):
            return dict(zip(map(str, parts.keys), children))
        if all(new is old for new, old in zip(children, parts.children)):
            return value
        if issubclass(parts.cls, Mapping):
            pairs = zip(parts.keys, children, parts.children)
            there = {key: new for key, new, old in pairs if new is not None or old is None}
            context = list(there) if parts.context == list(parts.keys) else parts.context
            return rebuilt(Parts(parts.cls, tuple(there), (), context), there.values())
        return rebuilt(parts, children)


def _parameters_of(distribution: Distribution) -> dict[str, Any]:
    """The tensors that make a distribution, by the names of its attributes, and the distributions it is made of."""
    return {
        name.lstrip("_"): value
        for name, value in vars(distribution).items()
        if isinstance(value, Distribution) or (isinstance(value, torch.Tensor) and not name.startswith("_"))
    }


def _free(name: str, number: int, signature: Signature) -> str:
    found = f"{name}_{number}"
    while found in signature.parameters:
        found += "_"
    return found


_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _is_plain(tree: Any) -> bool:
    if isinstance(tree, Varying):
        return False
    parts = split(tree)
    if parts is None:
        return True
    return (parts.cls in (dict, list, tuple) or _stays(parts.cls)) and all(map(_is_plain, parts.children))


def _stays(cls: type) -> bool:
    """Whether a program takes values of a class as they are."""
    return is_named_tuple(cls) or (is_registered(cls) and can_be_saved(cls))


def _is_shown(parts: Parts, child: Any) -> bool:
    """Whether a part of a container is given to the program: of objects only what holds tensors."""
    if isinstance(child, Varying):
        return False
    plain = issubclass(parts.cls, (Mapping, list, tuple)) or _stays(parts.cls)
    return plain or any(isinstance(leaf, (torch.Tensor, InputSpec)) for _, leaf in leaves({"": child}))


def _simple(tree: Any) -> Any:
    """``tree`` of containers that a program knows, without what must not be read."""
    parts = split(tree)
    if parts is None:
        return tree
    shown = [(key, _simple(child)) for key, child in zip(parts.keys, parts.children) if _is_shown(parts, child)]
    children = [child for _, child in shown]
    if issubclass(parts.cls, (list, tuple)) and not is_named_tuple(parts.cls) and not is_registered(parts.cls):
        return tuple(children) if issubclass(parts.cls, tuple) else children
    if len(shown) == len(parts.keys) and _stays(parts.cls):
        return rebuilt(parts, children)
    return {key if isinstance(key, (str, int)) else str(key): child for key, child in shown}


def _restored(template: Any, given: Any) -> Any:
    """What ``forward`` expects, of what the program was given."""
    if isinstance(template, Varying):
        return unread(template)
    parts = split(template)
    if parts is None or _is_plain(template):
        return given
    simple = split(given)
    assert simple is not None, "the program was given what _simple makes"
    remaining = iter(simple.children)
    children = [_restored(c, next(remaining)) if _is_shown(parts, c) else _hidden(c) for c in parts.children]
    return rebuilt(parts, children)


def _hidden(tree: Any) -> Any:
    """What the program is not given: values as they always were, and stand-ins for those that varied."""
    if isinstance(tree, Varying):
        return unread(tree)
    parts = split(tree)
    return tree if parts is None else rebuilt(parts, map(_hidden, parts.children))


def _bound(signature: Signature, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    bound = signature.bind_partial()
    bound.arguments.update({name: arguments[name] for name in signature.parameters if name in arguments})
    return bound.args, bound.kwargs


def _is_cache(cls: type) -> bool:
    """Whether it is one of transformers' stores of keys and values, for generating token after token."""
    return any(base.__name__.endswith("Cache") and base.__module__.startswith("transformers.") for base in cls.__mro__)


@contextlib.contextmanager
def caches_off(module: nn.Module) -> Iterator[None]:
    """Let models of transformers return no caches: each of their parts may have a configuration of its own."""
    changed: list[dict[str, Any]] = []
    pending = [config for part in module.modules() if (config := vars(part).get("config")) is not None]
    seen: set[int] = set()
    while pending:
        config = pending.pop()
        if id(config) in seen or not any(base.__module__.startswith("transformers.") for base in type(config).__mro__):
            continue
        seen.add(id(config))
        held = vars(config)
        pending += [value for value in held.values() if hasattr(value, "__dict__")]
        if held.get("use_cache") is True:
            held["use_cache"] = False
            changed.append(held)
    try:
        yield
    finally:
        for held in changed:
            held["use_cache"] = True
