"""Large engines are written to a file as they are built: in memory TensorRT would hold them a second time meanwhile.

Measured with TensorRT-RTX 1.6: besides the weights that a network points to, a build takes 2.0 times their size in
memory, and 1.2 times with a file. The bytes are the same.
"""

from __future__ import annotations

import functools
import mmap
import tempfile
from pathlib import Path
from typing import IO, Any

from torch.fx import GraphModule

from lightning_trt_windows._compat.torch_tensorrt import Upstream
from lightning_trt_windows.artifact.files import output_errors

__all__ = ["LARGE", "serialized"]

LARGE = 256 << 20
"""Bytes of weights from which on an engine is written to a file."""


def serialized(
    blocks: Upstream, builder: Any, network: Any, config: Any, graph: GraphModule, directory: Path | None
) -> memoryview | None:
    """Build ``network`` and serialize the engine.

    Args:
        blocks: Upstream's building blocks.
        builder: TensorRT's ``IBuilder``.
        network: The network.
        config: TensorRT's ``IBuilderConfig``.
        graph: What the network was made of.
        directory: Where a large engine may be written to, a file without a name; ``None`` keeps all in memory.

    Returns:
        The engine's bytes, in TensorRT's memory or of the file; ``None`` where TensorRT has refused.

    Raises:
        OutputError: The disk does not take them.
    """
    weights = sum(t.numel() * t.element_size() for t in (*graph.parameters(), *graph.buffers()))
    streams = hasattr(builder, "build_serialized_network_to_stream") and hasattr(blocks.trt, "IStreamWriter")
    if directory is None or weights < LARGE or not streams:
        plan = builder.build_serialized_network(network, config)
        return None if plan is None else memoryview(plan)
    with output_errors(directory, weights):
        opened = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 -- closed below
    with opened as file:
        writer = _writer_class(blocks)(file)
        built = builder.build_serialized_network_to_stream(network, config, writer)
        with output_errors(directory, weights):
            if writer.error is not None:
                raise writer.error
            file.flush()
        if not built or not writer.size:
            return None
        return memoryview(mmap.mmap(file.fileno(), writer.size, access=mmap.ACCESS_READ))


@functools.cache
def _writer_class(blocks: Upstream) -> Any:
    class Writer(blocks.trt.IStreamWriter):  # type: ignore[misc, name-defined]  # a C++ class, imported lazily
        """Gives a file what TensorRT writes. No exception may pass through C++: it is kept, and no more is written."""

        def __init__(self, file: IO[bytes]) -> None:
            super().__init__()
            self.size = 0
            self.error: OSError | None = None
            self._file = file

        def write(self, data: bytes) -> int:
            if self.error is not None:
                return 0
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
                return 0
            self.size += len(data)
            return len(data)

    return Writer
