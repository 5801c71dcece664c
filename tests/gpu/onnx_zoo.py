"""Models of the zoo through ONNX Runtime and its TensorRT-RTX execution provider, against eager.

    PYTHONPATH=tests python tests/gpu/onnx_zoo.py --workers 8 --seconds 300 --out onnx_zoo.jsonl

Each artifact becomes ``NAME.windows.onnx``, as ``lightning-trt-windows onnx`` makes it, and is called by the names of
``forward`` at the smallest, the usual and the largest sizes and at one between. Eager is on the CPU, in the
module's own precision. One JSON line per model, and a table at the end.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts import Work, main
from torch import Tensor
from torch.utils._pytree import tree_leaves
from zoo.exporting import SIZES, call, export
from zoo.models import ZOO

from lightning_trt_windows.onnx.model import write_onnx
from lightning_trt_windows.onnx.session import open_session


def through_onnxruntime(name: str) -> list[dict[str, Any]]:
    """Export, convert, run."""
    with tempfile.TemporaryDirectory() as folder:
        exported = export(ZOO[name], Path(folder))
        manifest = exported.artifact.manifest
        write_onnx(exported.artifact.path)
        session = open_session(exported.artifact.path.with_suffix(".onnx"))
        eager = getattr(exported.module, exported.entry.method)
        errors: dict[str, float] = {}
        for size in SIZES:
            args, kwargs = call(exported, size)
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            wanted = [leaf for leaf in tree_leaves(eager(*args, **kwargs)) if isinstance(leaf, Tensor)]
            given = {r.name: t.contiguous().numpy() for r, t in zip(manifest.inputs, tensors, strict=True)}
            found = session.run([r.name for r in manifest.outputs], given)
            errors[size] = max(distance(f, w) for f, w in zip(found, wanted, strict=True))
        return [{"errors": errors, "engines": len(manifest.engines)}]


def distance(found: np.ndarray[Any, Any], wanted: Tensor) -> float:
    """Relative norm of the difference."""
    if found.shape != tuple(wanted.shape):
        return 2.0
    a, b = torch.from_numpy(found).double(), wanted.double()
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def chosen(arguments: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    """All models that are not refused."""
    for name, entry in ZOO.items():
        if entry.refused is None:
            yield name, partial(through_onnxruntime, name)


def table(records: list[dict[str, Any]]) -> str:
    """Of what ran, and why the others did not."""
    lines = [f"{torch.cuda.get_device_name()}", "", f"| model | {' | '.join(SIZES)} |", "|---|" + "---|" * len(SIZES)]
    ran = [record for record in records if "errors" in record]
    for record in sorted(ran, key=lambda r: r["key"]):
        errors = " | ".join(f"{record['errors'][size]:.1e}" for size in SIZES)
        lines.append(f"| {record['key']} | {errors} |")
    lines += ["", f"{len(ran)} ran"]
    lines += [f"{r['key']}: {r['failed'][:200]}" for r in records if "failed" in r]
    return "\n".join(lines)


if __name__ == "__main__":
    found = main(__doc__, chosen, ("zoo",))
    if found is not None:
        print(table(found))
