"""What a saved graph may call, and what a tree in it may name. The graph comes from a file: neither is taken on trust.

``torch.export.load`` resolves ``torch.…`` by attribute, ``torch.os.system`` included, evaluates sizes as Python
expressions and imports modules that a tree names (read in torch 2.11 to 2.14). Here everything must be on a list:
operators that are registered, arithmetic of sizes, classes that are imported.
"""

from __future__ import annotations

import json
import math
import operator
import re
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import torch

__all__ = ["resolve", "tree_issues"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in (
        "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lshift", "lt", "mod", "mul", "ne", "neg", "or_",
        "pos", "pow", "rshift", "sub", "truediv", "xor",
    )},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "sqrt", "trunc")},
    **{f"torch.{name}": getattr(torch, name) for name in dir(torch) if name.startswith(("sym_", "_sym_"))},
}  # fmt: skip
"""Functions of sizes, by the names they have in the file."""
_TOUCH_FILES = frozenset({"aten.from_file", "aten.save"})
_FACTORIES = frozenset({"dict", "list", "tuple", "set", "int", "float", "str"})


def resolve(target: Any) -> Callable[..., Any]:
    """What ``target`` names: a registered operator or arithmetic.

    Returns:
        The function.

    Raises:
        ValueError: Anything else.
    """
    if isinstance(target, str) and target in _ARITHMETIC:
        return _ARITHMETIC[target]
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) != 5 or parts[:2] != ["torch", "ops"] or not all(_NAME.fullmatch(part) for part in parts):
        raise ValueError(f"it calls {_short(target)}, which is neither an operator nor arithmetic")
    if ".".join(parts[2:4]) in _TOUCH_FILES:
        raise ValueError(f"it calls {target}, which reads or writes files")
    # step by step, because torch.ops has attributes that are no namespaces, load_library for one
    value: Any = torch.ops
    for part, kind in zip(parts[2:], (torch._ops._OpNamespace, torch._ops.OpOverloadPacket, torch._ops.OpOverload)):
        value = getattr(value, part, None)
        if not isinstance(value, kind):
            raise ValueError(
                f"it calls {target}, which is not registered here; if that is a custom operator, import the package "
                "that defines it before load"
            )
    operation: Callable[..., Any] = value
    return operation


def tree_issues(text: str) -> Iterator[str]:
    """What in a serialized tree would import modules or call functions, as sentences."""
    try:
        pending = [json.loads(text)[1]]
        while pending:
            node = pending.pop()
            pending.extend(node["children_spec"])
            yield from _context_issues(node["type"], node["context"])
    except (ValueError, LookupError, TypeError, RecursionError):
        yield f"a description of arguments or outputs cannot be read: {_short(text)}"


def _context_issues(kind: Any, context: Any) -> Iterator[str]:
    if kind == "collections.defaultdict":
        module, name = context["default_factory_module"], context["default_factory_name"]
        if module != "builtins" or name not in _FACTORIES:
            yield f"a defaultdict calls {_short(module)}.{_short(name)}"
    pending = [json.loads(context)] if isinstance(context, str) and "{" in context else []
    while pending:
        item = pending.pop()
        pending.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        if isinstance(item, dict) and "__enum__" in item and not _is_known_enum(item.get("fqn")):
            yield f"keys are of the class {_short(item.get('fqn'))}; import its module before load"


def _is_known_enum(name: Any) -> bool:
    module, _, path = str(name).partition(":")
    value: Any = sys.modules.get(module)
    for part in path.split("."):
        value = getattr(value, part, None)
    return isinstance(value, type) and issubclass(value, Enum)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
