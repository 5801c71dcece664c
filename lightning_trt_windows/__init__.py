"""TensorRT engines for Windows beside every PyTorch Lightning checkpoint.

Importing this package imports neither torch, nor Lightning, nor Torch-TensorRT; each public name brings what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_trt_windows.artifact import Artifact
    from lightning_trt_windows.bundle.collecting import Bundle, collect
    from lightning_trt_windows.bundle.report import report
    from lightning_trt_windows.callback import WindowsExport
    from lightning_trt_windows.export import export_checkpoint, export_module
    from lightning_trt_windows.inspection import inspect
    from lightning_trt_windows.lightning_cli import WindowsExportCLI
    from lightning_trt_windows.lightning_flag import add_windows_export
    from lightning_trt_windows.many import export_checkpoints
    from lightning_trt_windows.range_options import RangeOptions
    from lightning_trt_windows.remote_artifact import fetch
    from lightning_trt_windows.runtime.loading import load
    from lightning_trt_windows.shapes import DimRange, InputSpec
    from lightning_trt_windows.signature import sign
    from lightning_trt_windows.verification.metric import verify_metric
    from lightning_trt_windows.verification.verify import verify

__all__ = [
    "Artifact",
    "Bundle",
    "DimRange",
    "InputSpec",
    "RangeOptions",
    "WindowsExport",
    "WindowsExportCLI",
    "add_windows_export",
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
]

_HOME = {
    "Artifact": "artifact",
    "Bundle": "bundle.collecting",
    "DimRange": "shapes",
    "InputSpec": "shapes",
    "RangeOptions": "range_options",
    "WindowsExport": "callback",
    "WindowsExportCLI": "lightning_cli",
    "add_windows_export": "lightning_flag",
    "collect": "bundle.collecting",
    "export_checkpoint": "export",
    "export_checkpoints": "many",
    "export_module": "export",
    "fetch": "remote_artifact",
    "inspect": "inspection",
    "load": "runtime.loading",
    "report": "bundle.report",
    "sign": "signature",
    "verify": "verification.verify",
    "verify_metric": "verification.metric",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lightning-trt-windows")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
