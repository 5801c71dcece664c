"""Run one TensorRT engine through the Python bindings, on torch's memory and the caller's CUDA stream.

Everything above this file knows an engine as a callable, tensors in and tensors out (``EngineRunner``).
"""

from __future__ import annotations

import collections
import contextlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from lightning_trt_windows.errors import ArtifactError, EnvironmentMismatchError, LightningTrtError
from lightning_trt_windows.manifest import EngineRecord
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


@dataclass(frozen=True)
class _Binding:
    name: str
    dtype: torch.dtype
    on_host: bool
    """TensorRT reads or writes it on the CPU: its values are sizes."""


@dataclass
class _Execution:
    """What belongs to one thread: TensorRT's context is not thread-safe."""

    context: Any
    stream: torch.cuda.Stream | None
    """Runs the engine while the caller is on the default stream, on which TensorRT would synchronize the device."""
    before: torch.cuda.Event | None = None
    after: torch.cuda.Event | None = None
    """Order the two streams. Made once: an event is recorded anew for each call."""
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """Of the inputs, in the last call."""
    outputs: list[tuple[int, ...]] = field(default_factory=list)
    """Shapes of the outputs that follow from ``shapes``; -1 where only the data tell."""
    allocator: Any = None
    held: list[torch.Tensor] = field(default_factory=list)
    """Host tensors that TensorRT may still read."""


class TensorRTRuntime:
    """Opens engines on one device. TensorRT and TensorRT-RTX have the same bindings as far as this goes.

    Args:
        bindings: The module ``tensorrt_rtx`` or ``tensorrt``.
        device: Where engines run.
        cache: Compiled kernels of TensorRT-RTX.
        cuda_graphs: Let TensorRT-RTX record and replay kernels.
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
        self._cuda_graphs = cuda_graphs
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
        """An execution context, with the runtime cache, CUDA graphs and specialization as asked for."""
        with self._lock:
            if self._cache is None and not self._cuda_graphs and self._specialization is None:
                context = engine.create_execution_context()
            else:
                config = engine.create_runtime_config()
                if self._specialization is not None:
                    strategies = self.bindings.DynamicShapesKernelSpecializationStrategy
                    config.dynamic_shapes_kernel_specialization_strategy = strategies.__members__[
                        self._specialization.upper()
                    ]
                if self._cuda_graphs:
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
        self._by_value = any(binding.on_host for binding in self._inputs)
        self._allocates = False
        # an address that is valid for a tensor without elements
        self._somewhere = torch.empty(1, device=self._device)
        self._threads = threading.local()
        # the thread that loads is, as a rule, the one that calls: it must not wait in its first call
        self._threads.execution = self._execution()

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueue the engine on the current stream."""
        execution = getattr(self._threads, "execution", None)
        if execution is None:
            execution = self._threads.execution = self._execution()
        with _current(self._device):
            self._set_inputs(execution, inputs)
            outputs = self._set_outputs(execution)
            self._enqueue(execution)
            return [
                execution.allocator.take(binding.name, binding.dtype) if output is None else output
                for binding, output in zip(self._outputs, outputs)
            ]

    def _binding(self, name: str) -> _Binding:
        dtype = self._engine.get_tensor_dtype(name)
        if dtype.name not in _DTYPES:
            raise ArtifactError(
                self._name, [f"the binding {name} is of type {dtype.name}, which PyTorch does not have"]
            )
        host = self._engine.get_tensor_location(name) == self._runtime.bindings.TensorLocation.HOST
        return _Binding(name, _DTYPES[dtype.name], host or self._engine.is_shape_inference_io(name))

    def _execution(self) -> _Execution:
        with _current(self._device):
            execution = _Execution(self._runtime.new_context(self._engine), None)
            execution.allocator = _allocator(self._runtime.bindings, self._device)
            if self._device.type == "cuda":
                execution.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
                execution.before, execution.after = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]
            return execution

    def _set_inputs(self, execution: _Execution, inputs: Sequence[torch.Tensor]) -> None:
        context, held, shapes = execution.context, [], []
        for binding, value in zip(self._inputs, inputs, strict=True):
            tensor = value if value.dtype is binding.dtype else value.to(binding.dtype)
            if binding.on_host:
                tensor = tensor.cpu()
            tensor = tensor.contiguous()
            # memory on the device is freed in the order of the stream, memory on the host at once
            held.append(tensor)
            shapes.append(tuple(tensor.shape))
            address = tensor.data_ptr() if tensor.numel() or binding.on_host else self._somewhere.data_ptr()
            if not context.set_tensor_address(binding.name, address):
                raise self._failure(f"does not take {binding.name}")
        execution.held = held
        if shapes == execution.shapes and not self._by_value:
            return
        execution.shapes = []
        for binding, shape in zip(self._inputs, shapes):
            if not context.set_input_shape(binding.name, shape):
                raise self._failure(f"does not take {binding.name} with the shape {list(shape)}")
        if missing := context.infer_shapes():
            raise self._failure(f"does not know the shape of {', '.join(missing)}")
        execution.outputs = [tuple(context.get_tensor_shape(binding.name)) for binding in self._outputs]
        execution.shapes = shapes

    def _set_outputs(self, execution: _Execution) -> list[torch.Tensor | None]:
        outputs: list[torch.Tensor | None] = []
        for binding, shape in zip(self._outputs, execution.outputs):
            if -1 in shape:
                self._allocates = True
                if not execution.context.set_output_allocator(binding.name, execution.allocator):
                    raise self._failure(f"takes no allocator for {binding.name}")
                outputs.append(None)
                continue
            device = torch.device("cpu") if binding.on_host else self._device
            output = torch.empty(shape, dtype=binding.dtype, device=device)
            address = output.data_ptr() if output.numel() or binding.on_host else self._somewhere.data_ptr()
            if not execution.context.set_tensor_address(binding.name, address):
                raise self._failure(f"does not take memory for {binding.name}")
            outputs.append(output)
        return outputs

    def _enqueue(self, execution: _Execution) -> None:
        context, own = execution.context, execution.stream
        if own is None:
            done = context.execute_async_v3(0)
        else:
            caller = torch.cuda.current_stream(self._device)
            if caller.cuda_stream:
                done = context.execute_async_v3(caller.cuda_stream)
            else:
                assert execution.before is not None and execution.after is not None
                execution.before.record(caller)
                own.wait_event(execution.before)
                # memory that TensorRT asks for while it runs belongs to the stream that it runs on
                with torch.cuda.stream(own) if self._allocates else contextlib.nullcontext():
                    done = context.execute_async_v3(own.cuda_stream)
                execution.after.record(own)
                caller.wait_event(execution.after)
        if not done:
            execution.shapes = []
            raise self._failure("failed")

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


def _allocator(bindings: Any, device: torch.device) -> Any:
    class Allocator(bindings.IOutputAllocator):  # type: ignore[misc]  # as above
        """Gives TensorRT torch's memory for outputs whose size only the data tell."""

        def __init__(self) -> None:
            bindings.IOutputAllocator.__init__(self)
            self._memory: dict[str, torch.Tensor] = {}
            self._shapes: dict[str, tuple[int, ...]] = {}

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: Any) -> int:
            self._memory[name] = torch.empty(max(size, 1), dtype=torch.uint8, device=device)
            return self._memory[name].data_ptr()

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return self.reallocate_output_async(name, memory, size, alignment, None)

        def notify_shape(self, name: str, shape: Any) -> None:
            self._shapes[name] = tuple(shape)

        def take(self, name: str, dtype: torch.dtype) -> torch.Tensor:
            """The output of the last call, which is the caller's from now on."""
            memory, shape = self._memory.pop(name), self._shapes.pop(name)
            size = math.prod(shape) * dtype.itemsize
            return memory[:size].view(dtype).view(shape)

    return Allocator()
