"""``python -m projects.trial PROJECT MODEL FOLDER``: train one model without the callback and with it.

Runs in the environment of the project. The last line that it prints is the record, as JSON.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import re
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_trt_windows import WindowsExport
from lightning_trt_windows.artifact.artifact import Artifact
from projects.model import MODELS, Model


def trial(project: str, name: str, folder: Path, whens: list[str]) -> dict[str, Any]:
    """Everything about one model: the plain trainings, and, where those gave nothing, the way on."""
    importlib.import_module(f"projects.{project}")
    model = MODELS[name]
    record: dict[str, Any] = {"steps": model.steps, "note": model.note}
    plain = _train(model, [], folder / "plain")
    if plain["error"]:
        # nothing can be said about the callback
        return record | {"error": plain["error"]}
    record["runs"] = {}
    for when in whens:
        record["runs"][when] = _with_callback(model, WindowsExport(when=when), folder / when)
    failures = [failure for run in record["runs"].values() for failure in run["failures"]]
    if failures:
        ways = [model.way_on] if model.way_on else _ways_on(failures[0])
        for number, way_on in enumerate(ways):
            run = _with_callback(model, WindowsExport(**way_on), folder / f"way_on_{number}")
            record["runs"]["way_on"] = run | {"arguments": _shown(way_on)}
            if run["artifacts"]:
                break
    for run in record["runs"].values():
        run["equal"] = run["weights"] == plain["weights"]
    if not all(run["equal"] for run in record["runs"].values()):
        # a training that never comes out the same says nothing about ours
        record["reproducible"] = _train(model, [], folder / "again")["weights"] == plain["weights"]
    record["plain_seconds"] = plain["seconds"]
    return record


def _with_callback(model: Model, callback: WindowsExport, folder: Path) -> dict[str, Any]:
    found = _train(model, [callback], folder)
    found["failures"] = [_first(failure) for failure in callback.failures]
    found["artifacts"] = len(callback.artifacts)
    if callback.artifacts:
        found["artifact"] = _facts(callback.artifacts[-1])
    return found


def _train(model: Model, callbacks: list[Any], folder: Path) -> dict[str, Any]:
    """One training, always from the same state."""
    folder.mkdir(parents=True)
    from lightning.pytorch import seed_everything

    seed_everything(1, verbose=False)
    started = time.perf_counter()
    weights, error = "", ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            weights = _weights(model.train(callbacks, folder))
        except Exception as raised:
            traceback.print_exc()
            error = f"{type(raised).__name__}: {raised}"
    said = [str(warning.message) for warning in caught if "Windows" in str(warning.message)]
    return {"error": error, "weights": weights, "said": said, "seconds": round(time.perf_counter() - started, 1)}


def _weights(module: nn.Module) -> str:
    """A hash of all parameters and buffers, bit for bit."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            if value.numel():
                found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _facts(artifact: Artifact) -> dict[str, Any]:
    """What the page shows of a manifest."""
    manifest = artifact.manifest
    inputs = []
    for record in manifest.inputs:
        bounds = zip(record.min, record.opt, record.max)
        sizes = ", ".join(str(opt) if low == high else f"{low}..{opt}..{high}" for low, opt, high in bounds)
        inputs.append(f"{record.name} {record.dtype}[{sizes}]")
    check = manifest.check
    return {
        "inputs": inputs,
        "outputs": [record.name for record in manifest.outputs],
        "engines": len(manifest.engines),
        "operators": [manifest.operators.tensorrt, manifest.operators.pytorch] if manifest.operators else None,
        "fallback": list(manifest.fallback_ops),
        "notes": list(manifest.notes),
        "sizes": [compared.name for compared in check.compared] if check else [],
        "error": max((max(c.lowered, c.engines) for c in check.compared), default=None) if check else None,
        "not_checked": list(check.not_checked) if check else [],
        "left_to_pytorch": [f"{left.operator}: {left.reason}" for left in check.left_to_pytorch] if check else [],
    }


def _ways_on(failure: str) -> list[dict[str, Any]]:
    """What a message says to do: the methods that it names, and operators to leave to PyTorch."""
    return [{"method": name} for name in dict.fromkeys(re.findall(r"method='([^']+)'", failure))]


def _first(failure: object) -> str:
    """A failure, without paths of this run."""
    return re.sub(r"no Windows artifact for [^:]*: ", "", str(failure))


def _shown(arguments: Any) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def main() -> int:
    """Run one trial and print its record."""
    project, name, folder, *whens = sys.argv[1:]
    torch.set_num_threads(1)
    record = trial(project, name, Path(folder), whens)
    print(json.dumps(record), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
