"""Run one TensorRT engine through the Python bindings, on torch's memory and the caller's CUDA stream.

Everything above this file knows an engine as a callable, tensors in and tensors out (``EngineRunner``).
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from lightning_trt_windows.artifact.manifest import EngineRecord
from lightning_trt_windows.errors import ArtifactError, EnvironmentMismatchError, LightningTrtError
from lightning_trt_windows.runtime.execution import Binding, Execution
from lightning_trt_windows.runtime.runtime_cache import RuntimeCache

__all__ = ["EngineOpener", "EngineRunner", "TensorRTRuntime"]


class EngineRunner(Protocol):
    """One engine, ready to run; any thread may call it."""

    def __call__(self, inputs: Sequence[torch.Tensor], /) -> Sequence[torch.Tensor]:
        """Outputs for ``inputs``, both in the order of the manifest's binding names."""


class EngineOpener(Protocol):
    """Makes engines of their bytes."""

    def __call__(self, record: EngineRecord, plan: memoryview, /) -> EngineRunner:
        """Deserialize ``plan``, which is not needed any more afterwards."""


_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "FP8": torch.float8_e4m3fn,
}
"""TensorRT's names of dtypes; the bindings' own map goes through NumPy, which has no bfloat16."""


class TensorRTRuntime:
    """Opens engines on one device. TensorRT and TensorRT-RTX have the same bindings as far as this goes.

    Args:
        bindings: The module ``tensorrt_rtx`` or ``tensorrt``.
        device: Where engines run.
        cache: Compiled kernels of TensorRT-RTX.
        cuda_graphs: Let TensorRT-RTX record and replay kernels. A recording is of addresses, so that inputs and outputs
            are copied into and out of memory that stays.
        specialization: How TensorRT-RTX compiles kernels for shapes: a name of its
            ``DynamicShapesKernelSpecializationStrategy`` in small letters; ``None`` for its own choice.
        lean_runtime: Library of the TensorRT version that built the engines, for version-compatible ones.

    Raises:
        EnvironmentMismatchError: TensorRT does not load ``lean_runtime``.
    """

    def __init__(
        self,
        bindings: Any,
        device: torch.device,
        *,
        cache: RuntimeCache | None = None,
        cuda_graphs: bool = False,
        specialization: str | None = None,
        lean_runtime: str | None = None,
    ) -> None:
        self.bindings = bindings
        self.device = device
        self._cache = cache
        self.cuda_graphs = cuda_graphs
        self._specialization = specialization
        self._lock = threading.Lock()
        self.logger = _logger(bindings)
        self._runtime = bindings.Runtime(self.logger)
        if lean_runtime is not None:
            self._loader = self._runtime  # TensorRT wants it to outlive what it loads
            self._runtime = self._loader.load_runtime(lean_runtime)
            if self._runtime is None:
                raise EnvironmentMismatchError(f"TensorRT does not load its lean runtime {lean_runtime}{self.said()}")

    def __call__(self, record: EngineRecord, plan: memoryview) -> EngineRunner:
        """Deserialize ``plan``.

        Raises:
            EnvironmentMismatchError: TensorRT does not take the engine; its own words are in the message.
            ArtifactError: The engine has other bindings than the manifest says.
        """
        with _current(self.device):
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise EnvironmentMismatchError(
                    f"TensorRT {self.bindings.__version__} does not take the engine {record.name} on {self.device}"
                    f"{self.said()}"
                )
            return _Engine(self, record, engine)

    def new_context(self, engine: Any) -> Any:
        """An execution context, with the runtime cache, CUDA graphs and specialization as asked for.

        Returns:
            The context.

        Raises:
            LightningTrtError: TensorRT makes no context.
        """
        with self._lock:
            if self._cache is None and not self.cuda_graphs and self._specialization is None:
                context = engine.create_execution_context()
            else:
                config = engine.create_runtime_config()
                if self._specialization is not None:
                    strategies = self.bindings.DynamicShapesKernelSpecializationStrategy
                    config.dynamic_shapes_kernel_specialization_strategy = strategies.__members__[
                        self._specialization.upper()
                    ]
                if self.cuda_graphs:
                    config.cuda_graph_strategy = self.bindings.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
                if self._cache is not None:
                    self._cache.attach(config)
                context = engine.create_execution_context(config)
        if context is None:
            raise LightningTrtError(f"TensorRT made no execution context{self.said()}")
        return context

    def said(self) -> str:
        """TensorRT's last errors, for the end of a message."""
        lines = "".join(f"\n  {line}" for line in self.logger.errors)
        return f". It said:{lines}" if lines else ", and gave no reason"


class _Engine:
    """One engine; implements ``EngineRunner``."""

    def __init__(self, runtime: TensorRTRuntime, record: EngineRecord, engine: Any) -> None:
        self._runtime = runtime
        self._device = runtime.device
        self._name = record.name
        self._engine = engine
        found = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        if found != {*record.inputs, *record.outputs}:
            raise ArtifactError(
                record.name, [f"the engine binds {sorted(found)}, the manifest {[*record.inputs, *record.outputs]}"]
            )
        self._inputs = [self._binding(name) for name in record.inputs]
        self._outputs = [self._binding(name) for name in record.outputs]
        self._switches = runtime.device.type == "cuda" and torch.cuda.device_count() > 1
        self._threads = threading.local()
        # the thread that loads is, as a rule, the one that calls: it must not wait in its first call
        self._threads.execution = self._execution()

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueue the engine on the current stream."""
        execution: Execution | None = getattr(self._threads, "execution", None)
        if execution is None:
            execution = self._threads.execution = self._execution()
        if not self._switches:
            return execution(inputs)
        with _current(self._device):
            return execution(inputs)

    def _binding(self, name: str) -> Binding:
        dtype = self._engine.get_tensor_dtype(name)
        if dtype.name not in _DTYPES:
            raise ArtifactError(
                self._name, [f"the binding {name} is of type {dtype.name}, which PyTorch does not have"]
            )
        on_host = self._engine.get_tensor_location(name) == self._runtime.bindings.TensorLocation.HOST
        on_host = on_host or self._engine.is_shape_inference_io(name)
        return Binding(name, _DTYPES[dtype.name], torch.device("cpu") if on_host else self._device, on_host)

    def _execution(self) -> Execution:
        with _current(self._device):
            return Execution(
                self._runtime.new_context(self._engine),
                self._inputs,
                self._outputs,
                self._device,
                self._runtime.bindings,
                self._failure,
                same_memory=self._runtime.cuda_graphs,
            )

    def _failure(self, what: str) -> LightningTrtError:
        return LightningTrtError(f"the engine {self._name} {what}{self._runtime.said()}")


def _current(device: torch.device) -> Any:
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def _logger(bindings: Any) -> Any:
    class Logger(bindings.ILogger):  # type: ignore[misc]  # a C++ class that only exists at run time
        """Keeps TensorRT's last errors instead of printing them."""

        def __init__(self) -> None:
            bindings.ILogger.__init__(self)
            self.errors: collections.deque[str] = collections.deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            if severity in (self.ERROR, self.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()
