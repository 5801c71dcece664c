"""Which execution provider of ONNX Runtime loads the engines of which TensorRT-RTX. Standard library only."""

from __future__ import annotations

__all__ = ["PROVIDER", "PROVIDER_DISTRIBUTION", "provider_versions"]

PROVIDER = "NvTensorRTRTXExecutionProvider"
"""Name of the execution provider, as ONNX Runtime and Windows ML know it."""

PROVIDER_DISTRIBUTION = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
"""Distribution on PyPI with the provider for Linux and Windows."""

_BUNDLED = {"0.3.0": "1.5.0", "0.4.0": "1.6.1", "0.5.0": "1.7.1"}
"""Version of the distribution to the version of TensorRT-RTX inside, as read from its wheels on 2026-11-25."""


def provider_versions(tensorrt_rtx: str) -> tuple[str, ...]:
    """Versions of ``PROVIDER_DISTRIBUTION`` that bundle the TensorRT-RTX that built an engine.

    An engine loads in the version of TensorRT-RTX that built it, to the minor: patches of one minor are taken as equal.

    Args:
        tensorrt_rtx: Version in the manifest, as ``"1.6.1.120"``.

    Returns:
        Versions, oldest first; empty where none is known.
    """
    minor = tensorrt_rtx.split(".")[:2]
    return tuple(version for version, bundled in _BUNDLED.items() if bundled.split(".")[:2] == minor)
