"""What is said where a trace fails: the line of the user's code, PyTorch's reason, and unknown classes."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.modules.containers import leaves
from lightning_trt_windows.modules.registration import registration_code

__all__ = ["explain_unknown_classes", "first_lines", "line_in_model", "one_way", "quantised_for_cpus"]

_MOST_PARTS = 3
_PYTHON = f"{Path(os.__file__).parent}{os.sep}"
"""Python's own library, in whose directory other packages may be."""
_NOT_THE_USERS = ("/torch/", "/lightning/pytorch/", "/pytorch_lightning/", "/lightning/fabric/")


def line_in_model(error: BaseException) -> str:
    """`` at model.py:12 (if x.sum() > 0:)``: the innermost line that is neither torch's, Python's nor ours."""
    text = str(error)
    quoted = re.findall(r'File "([^"]+)", line (\d+), in \S+\s*\n\s*([^\n]+)', text)
    frames = [(f.filename, str(f.lineno), f.line or "") for f in traceback.extract_tb(error.__traceback__)]
    ours = __file__.rsplit("/", 2)[0]
    for file, number, line in [*reversed(frames), *reversed(quoted)]:
        inside = any(part in file for part in _NOT_THE_USERS) or file.startswith((ours, "<"))
        if not inside and (not file.startswith(_PYTHON) or "-packages" in file):
            return f" at {file.rsplit('/', 1)[-1]}:{number} ({line.strip()})"
    return ""


def first_lines(error: BaseException) -> str:
    """The class of ``error`` and what counts of its message: the first line, complaints and suggestions."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    kept = lines[:1]
    # "Constraints violated" says nothing without what stands below it
    kept += [line for line in lines[1:] if line.startswith("  - ")][:4]
    suggested = next((i for i, line in enumerate(lines) if line.startswith("Suggested fixes")), None)
    if suggested is not None:
        kept += [line for line in lines[suggested:] if line.startswith(("Suggested", " "))]
    return f"{type(error).__name__}: " + "\n".join(kept)


def _with_weights(module: nn.Module, prefix: str) -> dict[str, nn.Module]:
    parts = module.named_children()
    return {f"{prefix}{name}": part for name, part in parts if next(part.parameters(), None) is not None}


def one_way(module: nn.Module) -> str:
    """What to do about a ``forward`` that decides by the values of tensors."""
    parts = _with_weights(module, "")
    while len(parts) == 1:  # a module around the network has nothing to say about it
        (only,) = parts
        inner = _with_weights(parts[only], f"{only}.")
        if not inner:
            break
        parts = inner
    # what has the most weights is most worth an engine
    names = sorted(parts, key=lambda name: -sum(p.numel() for p in parts[name].parameters() if not is_lazy(p)))
    shown = f", such as {' or '.join(f'method={name!r}' for name in names[:_MOST_PARTS])}" if names else ""
    return (
        "It decides there by the values of a tensor, and an artifact holds one way. Write it without (torch.where), or "
        f"export a method or a submodule that does not decide{shown}"
    )


def quantised_for_cpus(module: nn.Module) -> str:
    """What to do about layers that torch.ao has quantised; empty where there are none."""
    kinds = "torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized"
    found = ((name, type(part)) for name, part in module.named_modules() if type(part).__module__.startswith(kinds))
    for name, cls in found:
        return (
            f"{name or 'It'} is a {cls.__module__}.{cls.__name__}, which computes in INT8 "
            "on CPUs only. Export the module before it is quantised; docs/quantisation.md has what engines take instead"
        )
    return ""


def explain_unknown_classes(result: Any, error: CaptureError) -> None:
    """Add to ``error`` what to write for a class among the outputs that nobody can take apart."""
    plain = (torch.Tensor, str, bytes, int, float, complex, type(None))
    unknown = {type(leaf): name for name, leaf in leaves({"output": result}) if not isinstance(leaf, plain)}
    for cls, name in unknown.items():
        error.args = (
            f"{error.args[0]}\n{name} is a {cls.__name__}, which PyTorch cannot take apart. Return a tuple, a dict or "
            f"a dataclass of tensors, or say how before the export:\n{registration_code(cls)}",
        )
