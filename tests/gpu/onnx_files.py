"""ONNX models of programs with operators in PyTorch, written on one machine and run on another by ONNX Runtime.

    PYTHONPATH=tests python tests/gpu/onnx_files.py build models       (no GPU; PyTorch, onnx and onnxscript)
    PYTHONPATH=. python tests/gpu/onnx_files.py run models             (a GPU; onnxruntime and the provider, no PyTorch)

``build`` exports models of the zoo and keeps their ``.onnx``, engines, and what eager gives at four sizes.
What became one engine is there too. ``run`` prints one JSON line for each: the largest relative error at each size, how
many engines and operators the model has, or what went wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

MODELS = (
    "selects_rows", "graph_convolution", "float64", "deberta_v2", "unet_bilinear", "unet_nearest", "xcit", "lraspp",
    "spatial_transformer", "detector_with_nms", "keyword_spotting", "vit_any_size", "deeplab", "features_pyramid",
    "googlenet", "mlp",
)  # fmt: skip
"""Those that leave something to PyTorch with one version or another, and one that does not, to compare with."""


def build(folder: Path, only: list[str]) -> None:
    """Export, translate, and keep what eager gives."""
    import torch
    from torch.utils._pytree import tree_leaves
    from zoo.exporting import SIZES, call, export
    from zoo.models import ZOO

    from lightning_trt_windows import write_onnx
    from lightning_trt_windows.errors import LightningTrtError

    for name in only or MODELS:
        with tempfile.TemporaryDirectory() as place, torch.no_grad():
            try:
                exported = export(ZOO[name], Path(place))
                manifest = exported.artifact.manifest
                model = write_onnx(exported.artifact)
            except LightningTrtError as error:
                print(f"{name}: {error}", flush=True)
                continue
            arrays = {}
            for size in SIZES:
                args, kwargs = call(exported, size)
                tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
                results = tree_leaves(getattr(exported.module, exported.entry.method)(*args, **kwargs))
                wanted = [leaf for leaf in results if isinstance(leaf, torch.Tensor)]
                arrays |= {f"{size}/in/{number:03}": t.contiguous().numpy() for number, t in enumerate(tensors)}
                arrays |= {f"{size}/out/{number:03}": t.contiguous().numpy() for number, t in enumerate(wanted)}
            target = folder / name
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for path in (model.path, *model.engines):
                shutil.copy(path, target)
            np.savez_compressed(target / "calls.npz", **arrays)
            facts = {"engines": len(manifest.engines), "operators": manifest.fallback_ops}
            (target / "facts.json").write_text(json.dumps(facts))
            print(name, facts, flush=True)


def run(folder: Path, only: list[str]) -> None:
    """Run each model on the first GPU."""
    import onnxruntime

    from lightning_trt_windows.onnx.session import open_session

    print(f"onnxruntime {onnxruntime.__version__}")
    for target in sorted(path.parent for path in folder.glob("*/calls.npz")):
        if only and target.name not in only:
            continue
        record: dict[str, Any] = {"model": target.name, **json.loads((target / "facts.json").read_text())}
        try:
            session = open_session(next(target.glob("*.onnx")))
            names = [[value.name for value in values] for values in (session.get_inputs(), session.get_outputs())]
            arrays = np.load(target / "calls.npz")
            errors: dict[str, float] = {}
            for size in dict.fromkeys(key.split("/")[0] for key in arrays.files):
                given, wanted = (
                    [arrays[key] for key in sorted(arrays.files) if key.startswith(f"{size}/{kind}/")]
                    for kind in ("in", "out")
                )
                found = session.run(names[1], dict(zip(names[0], given, strict=True)))
                errors[size] = max(distance(f, w) for f, w in zip(found, wanted, strict=True))
            record["errors"] = {size: f"{error:.1e}" for size, error in errors.items()}
        # whatever it is, it is what was to be found out
        except Exception as error:
            record["failed"] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        print(json.dumps(record), flush=True)


def distance(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    """Relative norm of the difference; 2 where the shapes or the types differ."""
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        return 2.0
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("build", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    arguments = parser.parse_args()
    {"build": build, "run": run}[arguments.action](arguments.folder, arguments.only)
