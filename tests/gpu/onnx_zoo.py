"""Models of the zoo through ONNX Runtime and its TensorRT-RTX execution provider, against eager.

    PYTHONPATH=tests python tests/gpu/onnx_zoo.py --workers 8 --seconds 300 --out onnx_zoo.jsonl

Each artifact becomes ``NAME.windows.onnx``, as ``lightning-trt-windows onnx`` makes it, and is called at the smallest,
the usual and the largest sizes and at one between. What it leaves to PyTorch is run by ONNX Runtime's CPU provider;
``--suite fallback`` is of those models only. Eager is on the CPU, in the module's own precision. One JSON line per
model, and a table at the end.
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

LEAVES_SOMETHING = (
    "selects_rows", "graph_convolution", "float64", "deberta_v2", "unet_bilinear", "unet_nearest", "xcit", "lraspp",
    "spatial_transformer", "detector_with_nms", "keyword_spotting", "vit_any_size", "deeplab", "between_engines",
)  # fmt: skip
"""To PyTorch, seen with torch-tensorrt-rtx 2.14."""


def through_onnxruntime(name: str) -> list[dict[str, Any]]:
    """Export, convert, run."""
    with tempfile.TemporaryDirectory() as folder:
        exported = export(ZOO[name], Path(folder))
        manifest = exported.artifact.manifest
        write_onnx(exported.artifact.path)
        session = open_session(exported.artifact.path.with_suffix(".onnx"))
        eager = getattr(exported.module, exported.entry.method)
        inputs, outputs = ([v.name for v in values] for values in (session.get_inputs(), session.get_outputs()))
        errors: dict[str, float] = {}
        for size in SIZES:
            args, kwargs = call(exported, size)
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            wanted = [leaf for leaf in tree_leaves(eager(*args, **kwargs)) if isinstance(leaf, Tensor)]
            found = session.run(outputs, {n: t.contiguous().numpy() for n, t in zip(inputs, tensors, strict=True)})
            errors[size] = max(distance(f, w) for f, w in zip(found, wanted, strict=True))
        return [{"errors": errors, "engines": len(manifest.engines), "operators": manifest.fallback_ops}]


def distance(found: np.ndarray[Any, Any], wanted: Tensor) -> float:
    """Relative norm of the difference."""
    if found.shape != tuple(wanted.shape):
        return 2.0
    a, b = torch.from_numpy(found).double(), wanted.double()
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


def chosen(arguments: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    """All models that are not refused."""
    for name, entry in ZOO.items():
        if entry.refused is None and ("zoo" in arguments.suite or name in LEAVES_SOMETHING):
            yield name, partial(through_onnxruntime, name)


def table(records: list[dict[str, Any]]) -> str:
    """Of what ran, and why the others did not."""
    lines = [f"{torch.cuda.get_device_name()}", "", f"| model | engines | in PyTorch | {' | '.join(SIZES)} |"]
    lines.append("|---|---|---|" + "---|" * len(SIZES))
    ran = [record for record in records if "errors" in record]
    for record in sorted(ran, key=lambda r: r["key"]):
        errors = " | ".join(f"{record['errors'][size]:.1e}" for size in SIZES)
        left = ", ".join(record["operators"]) or "-"
        lines.append(f"| {record['key']} | {record['engines']} | {left} | {errors} |")
    lines += ["", f"{len(ran)} ran"]
    lines += [f"{r['key']}: {r['failed'][:200]}" for r in records if "failed" in r]
    return "\n".join(lines)


if __name__ == "__main__":
    found = main(__doc__, chosen, ("zoo", "fallback"))
    if found is not None:
        print(table(found))
