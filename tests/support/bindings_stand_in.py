"""TensorRT's Python bindings as far as they are used, on the CPU: for what cannot run on a machine without a GPU.

The engine is a function over tensors. Memory is passed by address, as TensorRT wants it, shapes and shape values before
the run; an output of unknown size goes through the allocator. ``test_engine_runner.py`` compares every class, method
and argument here with the real bindings, which import without a GPU.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

__all__ = ["make_bindings"]


class TensorLocation(enum.Enum):
    """Where a binding's memory is."""

    DEVICE = 0
    HOST = 1


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    """As TensorRT-RTX's."""

    LAZY = 0
    EAGER = 1
    NONE = 2


class CudaGraphStrategy(enum.Enum):
    """What is recorded."""

    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class ILogger:
    """What TensorRT writes its messages to."""

    ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"

    def log(self, severity: Any, msg: str) -> None:
        """Overridden."""


class IOutputAllocator:
    """What TensorRT asks for memory; subclasses define ``reallocate_output_async`` and ``notify_shape``."""


class IRuntimeCache:
    """Compiled kernels; here the number of contexts that were made with it."""

    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, blob: bytes) -> bool:
        """Take ``blob`` if it was made by this GPU."""
        self.content = blob if blob.startswith(b"kernels") else b""
        return bool(self.content)

    def serialize(self) -> bytes:
        """An ``IHostMemory`` in truth."""
        return self.content


class IRuntimeConfig:
    """How a context is made."""

    cuda_graph_strategy = CudaGraphStrategy.DISABLED
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def __init__(self) -> None:
        self._cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        """A new cache."""
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache | None = None) -> bool:
        """Use ``cache`` for contexts to come."""
        self._cache = cache
        return True


class ICudaEngine:
    """A function over tensors with named inputs and outputs."""

    def __init__(self, spec: SimpleNamespace) -> None:
        self._spec = spec
        self._names = [*spec.inputs, *spec.outputs]
        self.contexts: list[IExecutionContext] = []
        self.num_io_tensors = len(self._names)

    def get_tensor_name(self, index: int) -> str:
        """Of a binding."""
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        """A ``DataType``, whose members have names."""
        return SimpleNamespace(name=self._spec.dtypes[name])

    def get_tensor_location(self, name: str) -> TensorLocation:
        """Where its memory must be."""
        return TensorLocation.HOST if name in self._spec.host else TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        """Whether shapes depend on its values."""
        return name in self._spec.host

    def create_runtime_config(self) -> IRuntimeConfig:
        """To be filled in."""
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig | None = None) -> IExecutionContext | None:
        """One thread's state."""
        self.contexts.append(IExecutionContext(self._spec, runtime_config))
        if runtime_config is not None and runtime_config._cache is not None:
            runtime_config._cache.content += b"kernels"
        return self.contexts[-1]


TORCH = {"FLOAT": torch.float32, "INT64": torch.int64, "HALF": torch.float16, "BOOL": torch.bool}


class IExecutionContext:
    """Shapes and addresses of one run."""

    def __init__(self, spec: SimpleNamespace, config: IRuntimeConfig | None) -> None:
        self._spec = spec
        self.config = config
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.shape_calls = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Refused outside of the profile."""
        self.shape_calls += 1
        self.shapes[name] = tuple(shape)
        return not shape or shape[0] <= self._spec.largest

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Null is refused."""
        self.addresses[name] = memory
        return bool(memory)

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        """For outputs whose size only the data tell."""
        self.allocators[name] = output_allocator
        return True

    def infer_shapes(self) -> list[str]:
        """Names of what is still missing."""
        return [name for name in self._spec.inputs if name not in self.shapes or name not in self.addresses]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """-1 where only the data tell."""
        shape: tuple[int, ...] = self._spec.shape_of(name, self._read())
        return shape

    def execute_async_v3(self, stream_handle: int) -> bool:
        """At once, on the CPU."""
        results = self._spec.function(*self._read())
        for name, result in zip(self._spec.outputs, results):
            content = result.contiguous()
            size = content.numel() * content.element_size()
            if name in self.allocators:
                allocator = self.allocators[name]
                self.addresses[name] = allocator.reallocate_output_async(name, 0, size + 64, 256, stream_handle)
                allocator.notify_shape(name, tuple(content.shape))
            ctypes.memmove(self.addresses[name], content.data_ptr(), size)
        return not self._spec.fails

    def _read(self) -> list[Tensor]:
        return [
            torch.frombuffer(
                bytearray(ctypes.string_at(self.addresses[name], size * TORCH[self._spec.dtypes[name]].itemsize)),
                dtype=TORCH[self._spec.dtypes[name]],
                count=size,
            ).reshape(self.shapes[name])
            if (size := int(torch.Size(self.shapes[name]).numel()))
            else torch.empty(self.shapes[name], dtype=TORCH[self._spec.dtypes[name]])
            for name in self._spec.inputs
        ]


def make_bindings(
    function: Callable[..., Sequence[Tensor]],
    inputs: dict[str, str],
    outputs: dict[str, str],
    *,
    shape_of: Callable[[str, list[Tensor]], tuple[int, ...]] | None = None,
    host: Sequence[str] = (),
    largest: int = 8,
    fails: bool = False,
    complaint: str = "",
) -> Any:
    """A module like ``tensorrt_rtx`` whose only engine is ``function``.

    Args:
        function: Tensors to tensors.
        inputs: Binding name to name of TensorRT's dtype.
        outputs: Likewise.
        shape_of: Shape of an output given the inputs; by default ``function`` is asked.
        host: Inputs whose values are sizes.
        largest: Batch above which shapes are refused.
        fails: Whether execution fails.
        complaint: What TensorRT says when it deserializes; it then takes no engine.
    """
    spec = SimpleNamespace(
        function=function, inputs=list(inputs), outputs=list(outputs), dtypes={**inputs, **outputs}, host=set(host),
        largest=largest, fails=fails,
    )  # fmt: skip
    spec.shape_of = shape_of or (lambda name, given: tuple(function(*given)[spec.outputs.index(name)].shape))
    bindings = SimpleNamespace(__version__="1.6.1.120", engines=[])

    class Runtime:
        """Makes engines of bytes."""

        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
            """``None`` where it does not take it."""
            if complaint:
                self._logger.log(ILogger.ERROR, complaint)
                self._logger.log(ILogger.WARNING, "not an error")
                return None
            bindings.engines.append(ICudaEngine(spec))
            engine: ICudaEngine = bindings.engines[-1]
            return engine

    for cls in (
        Runtime, ILogger, IOutputAllocator, IRuntimeCache, IRuntimeConfig, ICudaEngine, IExecutionContext,
        TensorLocation, CudaGraphStrategy, DynamicShapesKernelSpecializationStrategy,
    ):  # fmt: skip
        setattr(bindings, cls.__name__, cls)
    return bindings
