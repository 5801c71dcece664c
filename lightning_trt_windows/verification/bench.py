"""How fast an artifact is on this machine: latency and throughput over the batch, against eager and ONNX Runtime.

Latency is the time from the call to the end of its work on the GPU, which is idle before each call; throughput is that
of calls one after the other without waiting between them. The sides take turns, call by call, so that a machine that
slows down does so for all of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.artifact import Artifact, read_artifact
from lightning_trt_windows.artifact.files import atomic_file
from lightning_trt_windows.artifact.manifest import InputRecord, Manifest
from lightning_trt_windows.errors import ConfigurationError, EnvironmentMismatchError
from lightning_trt_windows.onnx.session import call_on_gpu, call_on_host, installed_versions, open_session

if TYPE_CHECKING:
    import torch

    from lightning_trt_windows.runtime.loaded import LoadedModule

__all__ = ["Bench", "Point", "batch_symbol", "bench", "write_bench"]

FORMAT_VERSION = "1.0"
_SEED = 0
_Side = Callable[["Sequence[torch.Tensor]"], Callable[[], Any]]
"""Takes the inputs, which are on the GPU, and gives what is timed: one call with them."""
_WARM_UP = 10
"""Calls before the first that counts: TensorRT-RTX compiles kernels for new sizes beside the calls."""


@dataclass(frozen=True)
class Point:
    """What was measured at one size."""

    by: str
    """``load`` or ``eager``, whose inputs and outputs are on the GPU; ``onnxruntime``, where they are in the host's
    memory, as in most applications, and are copied; ``onnxruntime_gpu``, where they are on the GPU (``IOBinding``)."""
    batch: int | None
    """Size of the batch; ``None`` where the artifact has no dynamic batch."""
    p50: float
    """Median latency in milliseconds."""
    p90: float
    p99: float
    throughput: float
    """Samples a second; calls a second where there is no batch."""
    first_call: float
    """Milliseconds of the first call at this size."""
    calls: int
    """Calls that the latencies are of."""


@dataclass(frozen=True)
class Bench:
    """What ``bench`` measured."""

    artifact: str
    """Name of the ``.ep``."""
    sha256: str
    """SHA-256 of the ``.ep``."""
    device: str
    """Name of the GPU, or of the processor."""
    supported_gpu: bool | None
    """Whether the GPU is one that the engines were built for; ``None`` where that is not known."""
    versions: Mapping[str, str]
    load_seconds: float | None
    """What ``load`` took; ``None`` where the artifact was loaded before."""
    memory: int | None
    """Bytes of the GPU's memory that are in use after the largest size, by all sides together and by other programs;
    ``None`` off a GPU."""
    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON values.

        Returns:
            Plain values, by the names of the fields.
        """
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.artifact} on {self.device}"]
        if self.supported_gpu is False:
            lines.append("This GPU is not one that the engines were built for: other GPUs may be faster or slower.")
        if self.load_seconds is not None:
            lines.append(f"loaded in {self.load_seconds:.2f} s")
        if self.memory is not None:
            lines.append(f"{self.memory / 1e6:.0f} MB of the GPU's memory in use after the largest size")
        lines.append(
            f"{'by':16} {'batch':>6} {'P50 ms':>9} {'P90 ms':>9} {'P99 ms':>9} {'a second':>10} {'first ms':>9}"
        )
        for p in self.points:
            batch = "-" if p.batch is None else str(p.batch)
            lines.append(
                f"{p.by:16} {batch:>6} {p.p50:9.3f} {p.p90:9.3f} {p.p99:9.3f} {p.throughput:10.1f} {p.first_call:9.1f}"
            )
        return "\n".join(lines)


def bench(
    path: str | os.PathLike[str],
    *,
    device: str = "cuda:0",
    calls: int = 100,
    batches: Sequence[int] | None = None,
    reference: Callable[..., Any] | None = None,
    onnx: str | os.PathLike[str] | None = None,
    loaded: LoadedModule | None = None,
    **options: Any,
) -> Bench:
    """Measure an artifact on this machine.

    Args:
        path: The ``.ep`` or its ``.json``.
        device: The GPU.
        calls: Calls to time at each size.
        batches: Batches to measure; by default the smallest, the usual, the largest, and powers of two between.
        reference: The module, to measure eager PyTorch beside it. It is called as ``forward`` was.
        onnx: The artifact's ``.onnx``, to measure ONNX Runtime with the TensorRT-RTX execution provider beside it.
        loaded: The artifact as ``load`` gave it; by default it is loaded here.
        **options: Passed on to ``load``.

    Returns:
        Latency, throughput and the time of the first call for each batch.

    Raises:
        ConfigurationError: A batch is outside of the artifact's range.
        ArtifactError: The artifact is damaged.
        EnvironmentMismatchError: This machine cannot run it.
    """
    artifact = loaded.artifact if loaded is not None else read_artifact(Path(path))
    sizes = _batches(artifact.manifest, batches)
    load_seconds = None
    if loaded is None:
        from lightning_trt_windows.runtime.loading import load

        start = time.perf_counter()
        loaded = load(artifact.path, device, **options)
        load_seconds = time.perf_counter() - start
    clock = _Clock(loaded.device)
    sides: dict[str, _Side] = {"load": lambda inputs: partial(loaded.call_flat, inputs)}
    versions = _versions(artifact.manifest)
    if reference is not None:
        sides["eager"] = _eager(loaded, reference)
    if onnx is not None:
        sides |= _onnxruntime(Path(onnx), artifact, loaded.device)
        versions |= installed_versions()
    points: list[Point] = []
    for batch in sizes:
        points += _measured(loaded, clock, sides, batch, max(calls, 1))
    return Bench(
        artifact=artifact.path.name,
        sha256=artifact.manifest.ep.sha256,
        device=clock.name,
        supported_gpu=_supported(artifact.manifest, clock),
        versions=versions,
        load_seconds=None if load_seconds is None else round(load_seconds, 3),
        memory=clock.memory(),
        points=tuple(points),
    )


def batch_symbol(manifest: Manifest) -> str | None:
    """The dimension that throughput is counted in: the first axis of an input that varies, where there is one."""
    firsts = [record.symbols[0] for record in manifest.inputs if record.symbols]
    named = [symbol for symbol in firsts if symbol is not None]
    return "batch" if "batch" in named else next(iter(named), None)


def write_bench(artifact: Artifact, found: Bench) -> Path:
    """Write the figures beside ``artifact``, for ``report``.

    Returns:
        The file.

    Raises:
        OutputError: The file cannot be written.
    """
    path = artifact.paths.bench
    with atomic_file(path) as file:
        file.write((json.dumps(found.to_dict(), indent=2) + "\n").encode())
    return path


def _batches(manifest: Manifest, asked: Sequence[int] | None) -> Sequence[int | None]:
    symbol = batch_symbol(manifest)
    if symbol is None:
        if asked:
            raise ConfigurationError("the artifact has no dynamic batch, so no batches can be chosen")
        return [None]
    record, axis = next((r, r.symbols.index(symbol)) for r in manifest.inputs if symbol in r.symbols)
    low, opt, high = record.min[axis], record.opt[axis], record.max[axis]
    step = record.multiple_of[axis] if record.multiple_of else 1
    if asked:
        if wrong := [size for size in asked if not low <= size <= high or size % step]:
            raise ConfigurationError(
                f"batches must be between {low} and {high}"
                + (f" and multiples of {step}" if step > 1 else "")
                + f", got {', '.join(map(str, wrong))}"
            )
        return sorted({*asked})
    powers = (1 << bits for bits in range(high.bit_length()))
    between = (size for size in powers if low < size < high and not size % step)
    return sorted({low, opt, high, *between})


def _shapes(records: Sequence[InputRecord], symbol: str | None, batch: int | None) -> list[tuple[int, ...]]:
    return [
        tuple(batch if batch is not None and name == symbol else size for name, size in zip(r.symbols, r.opt))
        for r in records
    ]


def _measured(
    loaded: LoadedModule,
    clock: _Clock,
    sides: Mapping[str, _Side],
    batch: int | None,
    calls: int,
) -> Iterator[Point]:
    from lightning_trt_windows.verification.golden_file import Fill, filled

    records = loaded.manifest.inputs
    shapes = _shapes(records, batch_symbol(loaded.manifest), batch)
    inputs = [
        tensor.to(loaded.device)
        for tensor in filled(records, shapes, Fill(lowest=frozenset(range(len(records)))), _SEED)
    ]
    calls_of = {name: prepare(inputs) for name, prepare in sides.items()}
    first: dict[str, float] = {}
    latencies: dict[str, list[float]] = {name: [] for name in sides}
    for name, call in calls_of.items():
        first[name] = clock.once(call)
        for _ in range(_WARM_UP):
            clock.once(call)
    for number in range(calls):
        # each side is first in turn: what comes after another one finds other things in the caches
        order = list(sides)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            latencies[name].append(clock.once(calls_of[name]))
    for name, call in calls_of.items():
        spent = clock.once(lambda call=call: [call() for _ in range(calls)])  # type: ignore[misc]
        times = sorted(latencies[name])
        yield Point(
            by=name,
            batch=batch,
            p50=round(_percentile(times, 0.5), 4),
            p90=round(_percentile(times, 0.9), 4),
            p99=round(_percentile(times, 0.99), 4),
            throughput=round((batch or 1) * calls / spent * 1000, 1),
            first_call=round(first[name], 3),
            calls=calls,
        )


def _percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest value that ``fraction`` of the values do not exceed (nearest rank)."""
    return ordered[max(math.ceil(fraction * len(ordered)) - 1, 0)]


class _Clock:
    """Times work on a device, in milliseconds."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._torch = torch
        self._device = device
        self.on_gpu = device.type == "cuda"
        self.name = torch.cuda.get_device_name(device) if self.on_gpu else platform.processor() or platform.machine()

    @property
    def capability(self) -> str | None:
        """Compute capability of the GPU."""
        return ".".join(map(str, self._torch.cuda.get_device_capability(self._device))) if self.on_gpu else None

    def once(self, work: Callable[[], Any]) -> float:
        """What ``work`` takes, from an idle device to an idle device."""
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return 1000 * (time.perf_counter() - start)

    def memory(self) -> int | None:
        """Bytes in use on the device, by everybody."""
        if not self.on_gpu:
            return None
        free, total = self._torch.cuda.mem_get_info(self._device)
        return int(total - free)

    def _wait(self) -> None:
        if self.on_gpu:
            self._torch.cuda.synchronize(self._device)


def _eager(loaded: LoadedModule, reference: Callable[..., Any]) -> _Side:
    import torch

    if isinstance(reference, torch.nn.Module):
        reference = reference.to(loaded.device).eval()

    def prepare(tensors: Sequence[torch.Tensor]) -> Callable[[], Any]:
        args, kwargs = loaded.arguments(tensors)

        def call() -> Any:
            with torch.inference_mode():
                return reference(*args, **kwargs)

        return call

    return prepare


def _onnxruntime(path: Path, artifact: Artifact, device: torch.device) -> dict[str, _Side]:
    # a session each, or the first calls of one would have compiled the kernels of the other
    sessions = [open_session(path, device.index or 0) for _ in range(2)]
    made_of = sessions[0].get_modelmeta().custom_metadata_map.get("artifact_sha256")
    if made_of != artifact.manifest.ep.sha256:
        raise ConfigurationError(
            f"{path.name} was made of an artifact with the SHA-256 {made_of or '(none is named)'}, and "
            f"{artifact.path.name} has {artifact.manifest.ep.sha256}: lightning-trt-windows onnx {artifact.path.name} "
            "makes the model that belongs to it"
        )
    _take_error_left_behind(path, device)
    return {"onnxruntime": partial(call_on_host, sessions[0]), "onnxruntime_gpu": partial(call_on_gpu, sessions[1])}


def _take_error_left_behind(path: Path, device: torch.device) -> None:
    """Let CUDA report to us, and not in a measurement, what failed while a session was opened and was not asked for.

    The provider asks for every GPU of the machine, those that ``CUDA_VISIBLE_DEVICES`` hides as well, and whoever uses
    CUDA next gets "invalid device ordinal": seen with version 0.4.0 on a machine with four GPUs, one of them visible.

    Raises:
        EnvironmentMismatchError: CUDA cannot be used any more.
    """
    import torch

    for attempt in range(2):
        try:
            torch.zeros(1, device=device).add_(1).item()
        except RuntimeError as error:
            if attempt:
                raise EnvironmentMismatchError(
                    f"after ONNX Runtime has opened {path.name}, CUDA says on {device}: {str(error).splitlines()[0]}. "
                    "Measure it where no GPU is hidden by CUDA_VISIBLE_DEVICES, or without --onnx"
                ) from error


def _supported(manifest: Manifest, clock: _Clock) -> bool | None:
    capability, built_for = clock.capability, manifest.backend.compute_capabilities
    if capability is None or not built_for:
        return None
    return capability in built_for or ("newer" in built_for and _newer(capability, built_for))


def _newer(capability: str, built_for: Sequence[str]) -> bool:
    """Whether a GPU is newer than all that the engines name."""
    known = [tuple(map(int, one.split("."))) for one in built_for if one != "newer"]
    return tuple(map(int, capability.split("."))) > max(known)


def _versions(manifest: Manifest) -> dict[str, str]:
    import torch

    found = {"torch": str(torch.__version__), "python": platform.python_version(), "system": platform.system()}
    with contextlib.suppress(KeyError):
        found["tensorrt-rtx"] = manifest.versions["tensorrt-rtx"]
    return found
