"""Make the frozen samples beside this file: run it when the format changes, and never otherwise.

``tiny.windows.ep`` is a real artifact with a real TensorRT-RTX engine; ``manifest_v1.json`` is its manifest with every
optional value present. Needs torch and torch-tensorrt-rtx, no GPU.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows.manifest import CheckpointRecord

HERE = Path(__file__).parent


def main() -> None:
    """Write the samples."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    inputs = {"input": InputSpec((DimRange(1, 4, 8, name="batch"), 4))}
    artifact = export_module(
        module, inputs, HERE / "tiny.windows.ep", extra={"val_loss": 0.25, "classes": ["no", "yes"]}
    )
    full = dataclasses.replace(
        artifact.manifest,
        checkpoint=CheckpointRecord(file="epoch=3-step=99.ckpt", sha256="c" * 64, epoch=3, global_step=99),
        fallback_ops=("aten.nonzero.default",),
        verification={"relative_error": 0.0003, "batches": [1, 8]},
        notes=("aten.nonzero.default stays in PyTorch: its output has as many rows as there are values.",),
    )
    (HERE / "manifest_v1.json").write_text(full.to_json(), encoding="utf-8", newline="\n")
    print(json.dumps(full.to_dict()["ep"]))


if __name__ == "__main__":
    main()
