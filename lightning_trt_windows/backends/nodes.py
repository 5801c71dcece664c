"""What a node of a graph is, and how messages name it: its operator, and the line of the user's code it comes from."""

from __future__ import annotations

import torch
from torch.fx import Node

__all__ = ["is_check", "model_line", "operator_name"]


def operator_name(node: Node) -> str:
    """As ``aten.linear.default``."""
    target = node.target
    return str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))


def model_line(node: Node) -> str:
    """Where in the user's code a node comes from, as `` (model.py:12: x = self.up(x))``; empty if unknown."""
    trace = node.meta.get("stack_trace")
    lines = [line.strip() for line in trace.strip().splitlines()] if trace else []
    # the module's own line rather than the one inside torch.nn that it calls
    places = [i for i, line in enumerate(lines) if line.startswith("File ") and "/torch/" not in line]
    if not places:
        return ""
    _, file, rest = lines[places[-1]].split('"', 2)
    code = lines[places[-1] + 1] if places[-1] + 1 < len(lines) else ""
    number = rest.partition("line ")[2].partition(",")[0]
    return f" ({file.rsplit('/', 1)[-1]}:{number}: {code})"


def is_check(node: Node) -> bool:
    """Whether ``node`` only asserts a condition on sizes."""
    return node.op == "call_function" and "_assert_scalar" in str(node.target)
