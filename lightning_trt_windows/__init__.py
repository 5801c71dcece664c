"""TensorRT engines for Windows beside every PyTorch Lightning checkpoint.

Importing this package imports neither torch, nor Lightning, nor Torch-TensorRT; each public name brings what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_trt_windows.artifact.artifact import Artifact
    from lightning_trt_windows.artifact.inspection import inspect
    from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
    from lightning_trt_windows.artifact.signing import sign
    from lightning_trt_windows.builds.batch import export_checkpoints
    from lightning_trt_windows.builds.executors.submitit import SubmititExecutor
    from lightning_trt_windows.bundle.collecting import Bundle, collect
    from lightning_trt_windows.bundle.report import report
    from lightning_trt_windows.discovery.options import RangeOptions
    from lightning_trt_windows.export.pipeline import export_checkpoint, export_module
    from lightning_trt_windows.integrations.lightning_cli import WindowsExportCLI
    from lightning_trt_windows.integrations.lightning_flag import add_windows_export
    from lightning_trt_windows.onnx.model import write_onnx
    from lightning_trt_windows.runtime.loading import load
    from lightning_trt_windows.storage.remote_artifact import fetch
    from lightning_trt_windows.training.callback import WindowsExport
    from lightning_trt_windows.verification.bench import bench
    from lightning_trt_windows.verification.metric import verify_metric
    from lightning_trt_windows.verification.verify import verify

__all__ = [
    "Artifact",
    "Bundle",
    "DimRange",
    "InputSpec",
    "RangeOptions",
    "SubmititExecutor",
    "WindowsExport",
    "WindowsExportCLI",
    "add_windows_export",
    "bench",
    "collect",
    "export_checkpoint",
    "export_checkpoints",
    "export_module",
    "fetch",
    "inspect",
    "load",
    "report",
    "sign",
    "verify",
    "verify_metric",
    "write_onnx",
]

_HOME = {
    "Artifact": "artifact.artifact",
    "Bundle": "bundle.collecting",
    "DimRange": "artifact.shapes",
    "InputSpec": "artifact.shapes",
    "RangeOptions": "discovery.options",
    "SubmititExecutor": "builds.executors.submitit",
    "WindowsExport": "training.callback",
    "WindowsExportCLI": "integrations.lightning_cli",
    "add_windows_export": "integrations.lightning_flag",
    "bench": "verification.bench",
    "collect": "bundle.collecting",
    "export_checkpoint": "export.pipeline",
    "export_checkpoints": "builds.batch",
    "export_module": "export.pipeline",
    "fetch": "storage.remote_artifact",
    "inspect": "artifact.inspection",
    "load": "runtime.loading",
    "report": "bundle.report",
    "sign": "artifact.signing",
    "verify": "verification.verify",
    "verify_metric": "verification.metric",
    "write_onnx": "onnx.model",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lightning-trt-windows")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name == "WindowsExport":  # another class once another Lightning has been imported
        from lightning_trt_windows._compat.lightning import of_imported

        return of_imported(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
