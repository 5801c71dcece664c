"""One thread's way through one engine: TensorRT's context, the memory it reads and writes, the stream it runs on.

Every line that runs in each call is in the time of each inference, and takes several times what it takes in a loop of
its own: TensorRT pushes Python out of the processor's caches. So what is as in the last call is not done again, and the
cheapest of equal ways is taken; ``benchmarks/bench_call.py`` says what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lightning_trt_windows._compat.torch import current_stream_handle

__all__ = ["Binding", "Execution"]


@dataclass(frozen=True)
class Binding:
    """An input or an output of an engine."""

    name: str
    dtype: torch.dtype
    device: torch.device
    on_host: bool
    """TensorRT reads or writes it on the CPU: its values are sizes."""


_Result = tuple[Binding, tuple[int, ...], "tuple[int, ...] | None"]
"""An output, its shape and its strides; where only the data tell, the shape has -1 and there are no strides."""


class Execution:
    """Runs an engine for one thread: TensorRT's context is not thread-safe.

    Args:
        context: TensorRT's.
        inputs: In the order in which tensors are given.
        outputs: In the order in which they are returned.
        device: Where the engine runs.
        bindings: TensorRT's Python module.
        failure: The error for a text that says what the engine does not do.
        same_memory: Let the engine always see the same addresses, by copying what goes in and what comes out.
    """

    def __init__(
        self,
        context: Any,
        inputs: Sequence[Binding],
        outputs: Sequence[Binding],
        device: torch.device,
        bindings: Any,
        failure: Callable[[str], Exception],
        *,
        same_memory: bool = False,
    ) -> None:
        self.context = context
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._failure = failure
        self._streams = _Streams(device) if device.type == "cuda" else None
        self._allocator = _allocator(bindings, device)
        self._kept: dict[str, torch.Tensor] | None = {} if same_memory else None
        self._by_value = any(binding.on_host for binding in inputs)
        self._always_prepared = same_memory or self._by_value
        self._shapes: list[torch.Size] | None = None
        self._results: list[_Result] = []
        self._allocates = False
        self._addresses: dict[str, int] = {}
        self._held: Sequence[torch.Tensor] = ()
        self._somewhere = torch.empty(1, device=device)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Enqueue the engine on the current stream."""
        streams = self._streams
        if streams is not None and streams.changed() and self._kept is not None:
            self._kept.clear()  # they belong to the other stream
        if self._always_prepared or not self._as_before(inputs):
            inputs = self._prepared(inputs)
        # outputs must not get the memory of a copy made there, and what is on the host may be read after the call
        self._held = inputs
        addresses = self._addresses
        for binding, tensor in zip(self._inputs, inputs):
            # values of sizes are read when the address is set
            if addresses.get(binding.name) != tensor.data_ptr() or binding.on_host:
                self._bind(binding, tensor)
        outputs = []
        for binding, shape, strides in self._results:
            if strides is None:
                outputs.append(self._somewhere)  # nobody reads it: the allocator gives the memory
                continue
            if self._kept is None or binding.on_host:
                output = torch.empty_strided(shape, strides, dtype=binding.dtype, device=binding.device)
            else:
                output = self._staying(binding, shape)
            if addresses.get(binding.name) != output.data_ptr():
                self._bind(binding, output)
            outputs.append(output)
        if streams is None:
            done = self.context.execute_async_v3(0)
        elif self._allocates:
            streams.begin()
            # memory that TensorRT asks for while it runs belongs to the stream that it runs on
            with torch.cuda.stream(streams.used):
                done = self.context.execute_async_v3(streams.handle)
            streams.end()
        else:
            streams.begin()
            done = self.context.execute_async_v3(streams.handle)
            streams.end()
        if not done:
            self._shapes, self._addresses = None, {}
            raise self._failure("failed")
        if self._allocates or self._kept is not None:
            return [self._taken(*pair) for pair in zip(self._results, outputs)]
        return outputs

    def _as_before(self, inputs: Sequence[torch.Tensor]) -> bool:
        """Whether shapes are those of the last call, and TensorRT can read the tensors where they are."""
        shapes = self._shapes
        if shapes is None or len(inputs) != len(shapes):
            return False
        for binding, shape, tensor in zip(self._inputs, shapes, inputs):
            if tensor.shape != shape or tensor.dtype is not binding.dtype or not tensor.is_contiguous():
                return False
        return True

    def _prepared(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Tensors that TensorRT can read, after it has been told their shapes."""
        ready = [self._readable(*pair) for pair in zip(self._inputs, inputs, strict=True)]
        shapes = [tensor.shape for tensor in ready]
        if shapes != self._shapes or self._by_value:
            self._set_shapes(shapes, ready)
        return ready

    def _readable(self, binding: Binding, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()  # no copy of it shall remember where it comes from
        if binding.on_host:
            return tensor.to(binding.dtype).cpu().contiguous()
        if self._kept is not None:
            return self._staying(binding, tuple(tensor.shape)).copy_(tensor)
        return tensor.to(binding.dtype).contiguous()

    def _set_shapes(self, shapes: list[torch.Size], inputs: Sequence[torch.Tensor]) -> None:
        self._shapes = None
        for binding, shape, tensor in zip(self._inputs, shapes, inputs):
            self._bind(binding, tensor)
            if not self.context.set_input_shape(binding.name, tuple(shape)):
                raise self._failure(f"does not take {binding.name} with the shape {list(shape)}")
        if missing := self.context.infer_shapes():
            raise self._failure(f"does not know the shape of {', '.join(missing)}")
        self._results = [self._result(binding) for binding in self._outputs]
        self._allocates = any(strides is None for _, _, strides in self._results)
        self._shapes = shapes

    def _result(self, binding: Binding) -> _Result:
        shape = tuple(self.context.get_tensor_shape(binding.name))
        if -1 not in shape:
            return binding, shape, torch.empty(shape, device="meta").stride()
        if not self.context.set_output_allocator(binding.name, self._allocator):
            raise self._failure(f"takes no allocator for {binding.name}")
        return binding, shape, None

    def _staying(self, binding: Binding, shape: tuple[int, ...]) -> torch.Tensor:
        """Memory that is the same as long as shapes are."""
        assert self._kept is not None
        kept = self._kept.get(binding.name)
        if kept is None or kept.shape != shape:
            # a tensor made in inference mode could not be written to outside of it
            with torch.inference_mode(False):
                kept = self._kept[binding.name] = torch.empty(shape, dtype=binding.dtype, device=binding.device)
        return kept

    def _bind(self, binding: Binding, tensor: torch.Tensor) -> None:
        """Tell TensorRT where the memory of ``binding`` is."""
        # a tensor without elements has no address, and TensorRT wants one
        if not self.context.set_tensor_address(binding.name, tensor.data_ptr() or self._somewhere.data_ptr()):
            raise self._failure(f"does not take memory for {binding.name}")
        self._addresses[binding.name] = tensor.data_ptr()

    def _taken(self, result: _Result, output: torch.Tensor) -> torch.Tensor:
        """What the caller gets: the memory is the caller's from now on."""
        binding, _, strides = result
        if strides is None:
            taken: torch.Tensor = self._allocator.take(binding.name, binding.dtype)
            return taken
        return output if self._kept is None or binding.on_host else output.clone()


class _Streams:
    """The caller's stream and, while that is the default one, where TensorRT would synchronize, one beside it.

    Events are made once and recorded anew for each call.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._now = current_stream_handle(device)
        self._default = torch.cuda.default_stream(device)
        self._beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # torch.cuda's own events are wrapped in Python
        self._before, self._after = torch.Event(device), torch.Event(device)
        self._caller = -1
        self._captured = False
        self.used: Any = self._beside
        """Runs the engine."""
        self.handle: int = self._beside.cuda_stream
        """The ``cudaStream_t`` of ``used``."""

    def changed(self) -> bool:
        """Look where the caller is now; whether it is another stream than in the last call."""
        caller = self._now()
        if caller:
            # a stream that is recorded must not depend on one that is not, nor the other way round
            self._captured = torch.cuda.is_current_stream_capturing()
        if caller == self._caller:
            return False
        self._caller = caller
        self.used = torch.cuda.current_stream(self._device) if caller else self._beside
        self.handle = self.used.cuda_stream
        if not (caller and self._captured):
            # the context's working memory is one: what it does on the other stream must be over
            self._after.wait(self.used)
        return True

    def begin(self) -> None:
        """Wait for what the caller has enqueued."""
        if not self._caller:
            self._before.record(self._default)
            self._before.wait(self.used)

    def end(self) -> None:
        """Let what the caller enqueues from now on wait for the engine."""
        if not self._caller:
            self._after.record(self.used)
            self._after.wait(self._default)
        elif not self._captured:
            self._after.record(self.used)


def _allocator(bindings: Any, device: torch.device) -> Any:
    class Allocator(bindings.IOutputAllocator):  # type: ignore[misc]  # a C++ class that only exists at run time
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
