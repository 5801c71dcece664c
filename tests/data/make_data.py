"""Make ``manifest_v1_3.json`` beside this file: the frozen sample with what versions 1.1 to 1.3 of the format added.

``tiny.windows.ep``, its manifest and ``manifest_v1.json`` are of version 1.0, ``manifest_v1_1.json`` and
``manifest_v1_2.json`` of 1.1 and 1.2. They are not made again: every later reader of major version 1 must read them.
The ``.ep`` is a real artifact with a real TensorRT-RTX engine.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lightning_trt_windows.artifact.manifest import (
    CheckedSizes,
    CheckRecord,
    FileRecord,
    LeftToPyTorch,
    Manifest,
    OperatorCounts,
    Score,
)

HERE = Path(__file__).parent


def main() -> None:
    """Write the sample."""
    first = Manifest.from_json((HERE / "manifest_v1.json").read_text(encoding="utf-8"), "manifest_v1.json")
    (x,) = first.inputs
    assert first.checkpoint is not None
    source = dataclasses.replace(x.source, sizes=({"4": 20, "1": 2}, {"4": 22}), shapes={"4x4": 20, "1x4": 2})
    newer = dataclasses.replace(
        first,
        golden=FileRecord(file="tiny.windows.golden.safetensors", size=1234, sha256="d" * 64),
        onnx=(
            FileRecord(file="tiny.windows.onnx", size=1000, sha256="e" * 64),
            FileRecord(file="tiny.windows.engine", size=first.engines[0].size, sha256=first.engines[0].sha256),
        ),
        checkpoint=dataclasses.replace(first.checkpoint, scores=(Score(monitor="val_loss", mode="min", value=-0.25),)),
        inputs=(dataclasses.replace(x, multiple_of=(1, 1), source=source),),
        operators=OperatorCounts(tensorrt=5, pytorch=1),
        check=CheckRecord(
            mode="auto",
            compared=(CheckedSizes(name="min", sizes={"batch": 1}, lowered=0.0, engines=1e-6),),
            not_checked=("the sizes max would take about 12 s",),
            left_to_pytorch=(LeftToPyTorch(operator="aten.topk.default", line="model.py:3: x.topk(2)", reason="-"),),
        ),
    )
    (HERE / "manifest_v1_3.json").write_text(newer.to_json(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
