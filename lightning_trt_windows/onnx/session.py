"""A session of ONNX Runtime with the TensorRT-RTX execution provider, as applications open one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.onnx.providers import PROVIDER, PROVIDER_DISTRIBUTION

__all__ = ["open_session"]


def open_session(path: Path) -> Any:
    """Open the model at ``path`` on the first GPU that the provider finds.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        EnvironmentMismatchError: ONNX Runtime or the provider is not installed, or finds no GPU.
    """
    try:
        import onnxruntime
        import onnxruntime_ep_nv_tensorrt_rtx as provider
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"running {path.name} needs ONNX Runtime and its provider for TensorRT-RTX: "
            f"pip install onnxruntime {PROVIDER_DISTRIBUTION}"
        ) from error
    if not any(device.ep_name == PROVIDER for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(PROVIDER, provider.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    if not devices:
        raise EnvironmentMismatchError(
            f"ONNX Runtime's {PROVIDER} finds no GPU on this machine: is there an NVIDIA driver?"
        )
    options = onnxruntime.SessionOptions()
    options.add_provider_for_devices(devices[:1], {})
    return onnxruntime.InferenceSession(str(path), sess_options=options)
