"""Torch-TensorRT-RTX beside a build of PyTorch for CPUs only: 1.3 GB installed instead of 5.7 GB.

Torch-TensorRT's libraries need those of CUDA, and compiling needs neither: without them it has a runtime in Python, and
builds engines with TensorRT-RTX's bindings alone. What remains is to hide the libraries while it imports, to lend it
one name of PyTorch's, and to define the one operator that only its libraries' half defines.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from lightning_trt_windows._compat.versions import Workaround, minor
from lightning_trt_windows.errors import EnvironmentMismatchError

__all__ = ["CUDA_LIBRARIES_ARE_LOADED", "check_build", "cuda_libraries_hidden", "engine_operator", "is_cpu_build"]

PYTHON_RUNTIME_SINCE = "2.13"
"""First minor of Torch-TensorRT that imports without its libraries; until then it asks them for an engine's layout."""

CUDA_LIBRARIES_ARE_LOADED = Workaround(
    upstream="torch-tensorrt-rtx",
    since=PYTHON_RUNTIME_SINCE,
    until=None,
    reason="With a CPU-only PyTorch the import loads libtorchtrt.so, which needs CUDA's libraries, names a class that "
    "such a build lacks, and leaves the engine operator undefined.",
    link="https://github.com/pytorch/TensorRT/blob/v2.13.0/py/torch_tensorrt/__init__.py",
    test="test_cpu_build.py::test_import_still_fails_beside_a_cpu_build",
    delete="torch_tensorrt imports beside a CPU-only PyTorch and defines no_op_placeholder_for_execute_engine there.",
)

_ARGUMENTS: Mapping[str, str] = {
    "ABI_TARGET_IDX": "str abi_version",
    "NAME_IDX": "str name",
    "DEVICE_IDX": "str serialized_device_info",
    "ENGINE_IDX": "Tensor serialized_engine",
    "INPUT_BINDING_NAMES_IDX": "str serialized_in_binding_names",
    "OUTPUT_BINDING_NAMES_IDX": "str serialized_out_binding_names",
    "HW_COMPATIBLE_IDX": "str serialized_hardware_compatible",
    "SERIALIZED_METADATA_IDX": "str serialized_metadata",
    "TARGET_PLATFORM_IDX": "str serialized_target_platform",
    "REQUIRES_OUTPUT_ALLOCATOR_IDX": "str serialized_require_output_allocator",
    "RESOURCE_ALLOCATION_STRATEGY_IDX": "str serialized_resource_allocation_strategy",
    "REQUIRES_NATIVE_MULTIDEVICE_IDX": "str serialized_requires_native_multidevice",
    "ALIASED_IO_IDX": "str serialized_aliased_io",
}
"""Field of an engine's record to argument of the operator, as upstream declares it (``register_meta_ops.py``)."""


def is_cpu_build() -> bool:
    """Whether the installed PyTorch is a build without CUDA."""
    import torch

    return torch.version.cuda is None


def check_build(backend: str, distribution: str, version: str | None) -> None:
    """Refuse a CPU-only PyTorch where ``backend`` cannot do with it.

    Raises:
        EnvironmentMismatchError: Classic TensorRT, which needs a GPU, or a release before ``PYTHON_RUNTIME_SINCE``.
    """
    import torch

    if not is_cpu_build() or (backend == "tensorrt_rtx" and minor(version) >= minor(PYTHON_RUNTIME_SINCE)):
        return
    cuda = f"Install the CUDA build of PyTorch {'.'.join(map(str, minor(version)))}: on Linux the default one of pip"
    if backend == "tensorrt_rtx":
        raise EnvironmentMismatchError(
            f"PyTorch {torch.__version__} is a CPU-only build, and {distribution} {version} loads libraries of the "
            f"CUDA build (no GPU is needed, but the build is). {cuda}; or take {distribution} {PYTHON_RUNTIME_SINCE} "
            "or newer, which exports with a CPU-only build too"
        )
    raise EnvironmentMismatchError(
        f"PyTorch {torch.__version__} is a CPU-only build, and {distribution} {version} compiles on a GPU. {cuda}; or "
        'take the backend tensorrt_rtx, which needs neither: pip install "lightning-trt-windows[rtx]"'
    )


@contextlib.contextmanager
def cuda_libraries_hidden() -> Iterator[None]:
    """Let ``torch_tensorrt`` import beside a CPU-only PyTorch as if it had no libraries; else do nothing."""
    import torch

    if not is_cpu_build():
        yield
        return
    really = os.path.isfile

    def seen(path: Any) -> bool:
        return not os.path.basename(path).startswith("libtorchtrt") and really(path)  # noqa: PTH119  # stands in for os.path

    # annotations name the class while modules are imported; nothing is made of it
    lent = () if hasattr(torch._C, "_CudaDeviceProperties") else ("_CudaDeviceProperties",)
    with mock.patch("os.path.isfile", seen), contextlib.ExitStack() as stack:
        for name in lent:
            stack.enter_context(mock.patch.object(torch._C, name, type(name, (), {}), create=True))
        yield


def engine_operator(layout: Any) -> Any:
    """The operator that stands for an engine, defined with the record's ``layout`` where upstream has not."""
    import torch

    if not hasattr(torch.ops.tensorrt, "no_op_placeholder_for_execute_engine"):
        library: Any = torch.library.Library("tensorrt", "FRAGMENT")  # type: ignore[no-untyped-call]
        library.define(schema(layout))
        _kept.append(library)
    return torch.ops.tensorrt.no_op_placeholder_for_execute_engine.default


def schema(layout: Any) -> str:
    """The operator's schema for the installed layout of an engine's record."""
    fields = sorted(
        (int(getattr(layout, name)), argument) for name, argument in _ARGUMENTS.items() if hasattr(layout, name)
    )
    arguments = ", ".join(argument for _, argument in fields)
    return f"no_op_placeholder_for_execute_engine(Tensor[] inputs, {arguments}) -> Tensor[]"


_kept: list[Any] = []
"""Definitions end with the library object that made them."""
