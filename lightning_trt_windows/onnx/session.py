"""A session of ONNX Runtime with the TensorRT-RTX execution provider, as applications open one, and its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.onnx.providers import PROVIDER, PROVIDER_DISTRIBUTION, provider_versions
from lightning_trt_windows.onnx.tensor_types import TYPES

if TYPE_CHECKING:
    import torch

__all__ = ["Call", "call_on_gpu", "call_on_host", "installed_versions", "open_session"]

Call = Callable[[], Any]
"""One run of a session, with inputs that it has already."""


def open_session(path: Path, device_index: int = 0) -> Any:
    """Open the model at ``path`` on a GPU.

    Args:
        path: The ``.onnx``, with its engines beside it.
        device_index: Number of the GPU among those that the provider finds, from 0.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        EnvironmentMismatchError: ONNX Runtime or the provider is not installed, finds no such GPU, or does not take the
            model.
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
    if device_index >= len(devices):
        raise EnvironmentMismatchError(
            f"ONNX Runtime's {PROVIDER} finds {len(devices)} GPUs on this machine, and number {device_index} was "
            "wanted, counted from 0: is there an NVIDIA driver?"
        )
    options = onnxruntime.SessionOptions()
    options.add_provider_for_devices([devices[device_index]], {})
    try:
        return onnxruntime.InferenceSession(str(path), sess_options=options)
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        said = f"ONNX Runtime does not open {path.name}: {error}{_provider_of(path)}"
        raise EnvironmentMismatchError(said) from error


def call_on_host(session: Any, tensors: Sequence[torch.Tensor]) -> Call:
    """A call with arrays in the host's memory, as most applications make it: copies both ways are part of it.

    Args:
        session: As ``open_session`` gave it.
        tensors: One for each input of the model, in its order, on any device.

    Returns:
        The call; it returns arrays.
    """
    import onnxruntime

    values = {}
    for given, tensor in zip(session.get_inputs(), tensors, strict=True):
        array, kind = _array(tensor)
        values[given.name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, kind)
    return partial(session.run_with_ort_values, None, values)


def call_on_gpu(session: Any, tensors: Sequence[torch.Tensor]) -> Call:
    """A call with inputs that are on the GPU and outputs that stay there (``IOBinding``).

    Args:
        session: As ``open_session`` gave it.
        tensors: One for each input of the model, in its order, on the GPU of the session.

    Returns:
        The call. It keeps ``tensors``, whose memory the binding names.
    """
    binding, kept = session.io_binding(), [tensor.contiguous() for tensor in tensors]
    for given, tensor in zip(session.get_inputs(), kept, strict=True):
        index, kind = tensor.device.index or 0, _type(tensor)
        binding.bind_input(given.name, tensor.device.type, index, kind, tuple(tensor.shape), tensor.data_ptr())
    for output in session.get_outputs():
        binding.bind_output(output.name, kept[0].device.type, kept[0].device.index or 0)

    def call(_kept: Sequence[torch.Tensor] = kept) -> Any:
        return session.run_with_iobinding(binding)

    return call


def installed_versions() -> dict[str, str]:
    """Versions of ONNX Runtime and the provider, as far as they are installed.

    Returns:
        Name of the distribution to version.
    """
    found = {}
    for name in ("onnxruntime", PROVIDER_DISTRIBUTION):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _array(tensor: torch.Tensor) -> tuple[Any, int]:
    """A tensor as an array in the host's memory, and its type in ONNX. NumPy has no bfloat16: its bytes, then."""
    import torch

    host = tensor.detach().cpu().contiguous()
    return (host.view(torch.int16) if host.dtype is torch.bfloat16 else host).numpy(), _type(tensor)


def _type(tensor: torch.Tensor) -> int:
    return TYPES[str(tensor.dtype).removeprefix("torch.")]


def _provider_of(path: Path) -> str:
    """Which version of the provider takes the engines of the model, for the end of a message."""
    try:
        import onnx

        properties = {p.key: p.value for p in onnx.load(str(path), load_external_data=False).metadata_props}
    except Exception:  # the message is about something else
        return ""
    needed = provider_versions(properties.get("tensorrt_rtx", ""))
    here = installed_versions().get(PROVIDER_DISTRIBUTION)
    if not needed or here in needed:
        return ""
    return (
        f". Its engines are of TensorRT-RTX {properties['tensorrt_rtx']}, which {PROVIDER_DISTRIBUTION} "
        f"{' or '.join(needed)} bundles; {here or 'another one'} is installed"
    )
