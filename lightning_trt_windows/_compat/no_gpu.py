"""Importing Torch-TensorRT on a machine without a GPU or a driver."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from unittest import mock

from lightning_trt_windows._compat.versions import Workaround

__all__ = ["IMPORT_ASKS_FOR_A_GPU", "IMPORT_SAYS_THAT_THERE_IS_NO_GPU", "no_gpu_needed"]

IMPORT_ASKS_FOR_A_GPU = Workaround(
    upstream="torch-tensorrt",
    since="2.11",
    until=None,
    reason="torch_tensorrt asks for the current device and its capability while it imports (_utils.is_tegra, "
    "_defaults), which fails without a driver.",
    link="https://github.com/pytorch/TensorRT/pull/4504",
    test="test_torch_tensorrt.py::test_import_still_needs_a_gpu",
    delete="import torch_tensorrt succeeds without a GPU.",
)

IMPORT_SAYS_THAT_THERE_IS_NO_GPU = Workaround(
    upstream="torch-tensorrt",
    since="2.11",
    until=None,
    reason="The C++ library prints a line at import that there is no GPU, which nobody can act on.",
    link="https://github.com/pytorch/TensorRT/pull/532",
    test="test_torch_tensorrt.py::test_import_still_says_that_there_is_no_gpu",
    delete="The line is gone.",
)


@contextlib.contextmanager
def no_gpu_needed() -> Iterator[None]:
    """Answer ``torch.cuda`` for an Ampere device while torch_tensorrt imports; does nothing where a GPU is present."""
    import torch

    if torch.cuda.is_available():
        yield
        return
    with _one_line_less(), _ampere():
        yield


@contextlib.contextmanager
def _ampere() -> Iterator[None]:
    import torch

    properties = types.SimpleNamespace(major=8, minor=0, name="NVIDIA", total_memory=1 << 36)
    with mock.patch.multiple(
        torch.cuda,
        current_device=lambda: 0,
        get_device_capability=lambda *_: (8, 0),
        get_device_properties=lambda *_: properties,
        get_device_name=lambda *_: "NVIDIA",
    ):
        yield


@contextlib.contextmanager
def _one_line_less() -> Iterator[None]:
    """Drop the C++ library's line that there is no GPU; other output comes a little later."""
    if not hasattr(sys.stderr, "fileno"):
        yield
        return
    with tempfile.TemporaryFile() as caught:
        kept = [(stream, os.dup(stream)) for stream in (1, 2)]
        try:
            for stream, _ in kept:
                os.dup2(caught.fileno(), stream)
            yield
        finally:
            for stream, copy in kept:
                os.dup2(copy, stream)
                os.close(copy)
            caught.seek(0)
            for line in caught:
                if b"Unable to read CUDA capable devices" not in line:
                    os.write(2, line)
