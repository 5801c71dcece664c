"""The rehearsal: artifacts for Windows, their own engine bytes, run by ``load`` on a GPU of this machine."""

from __future__ import annotations

import copy
import gc
import importlib.util
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from lightning_trt_windows import DimRange, InputSpec, export_module, load
from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.runtime.loaded import LoadedModule

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="runs engines, which needs an NVIDIA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="runs engines with tensorrt-rtx"),
]

GPU = "cuda:0"
BATCH = DimRange(1, 8, 32, name="batch")


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Eager in full float32, so that the difference is TensorRT's; a GPU that is not on the list only warns."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*NVIDIA does not support it")
        yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Digits(nn.Module):
    """A small convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Sequence(nn.Module):
    """An LSTM that also returns its state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        y, (h, c) = self.lstm(x)
        return {"logits": self.head(y[:, -1]), "state": (h, c)}


class TwoEngines(nn.Module):
    """Singular values stay in PyTorch between two engines, and so does a convolution with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 4)

    def forward(self, x: Tensor, *, scale: Tensor) -> Any:
        y = self.first(x).relu()
        values = torch.linalg.svdvals(y.reshape(-1, 2, 4) + 0.1)
        return self.second(y) * scale + values.sum(-1, keepdim=True), [values, y]


class Selection(nn.Module):
    """An output whose length only the data tell."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        return y, torch.nonzero(x.relu() > 0.5)


class Fallback(nn.Module):
    """A convolution that is kept in PyTorch: its weights and new tensors must be on the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x.relu() * 2) * 3 + torch.arange(16, device=x.device))


def resnet18() -> nn.Module:
    """Random weights, with statistics that keep activations in range."""
    torchvision = pytest.importorskip("torchvision", reason="ResNet-18 is torchvision's")
    module: nn.Module = torchvision.models.resnet18()
    return module


def half() -> nn.Module:
    """Weights, inputs and outputs of float16."""
    return Digits().half()


SPECS = {
    "digits": (Digits, {"x": InputSpec((BATCH, 1, 8, 8))}, {}),
    "half": (half, {"x": InputSpec((BATCH, 1, 8, 8), "float16")}, {}),
    "resnet18": (resnet18, {"x": InputSpec((BATCH, 3, 224, 224))}, {}),
    "lstm": (Sequence, {"x": InputSpec((BATCH, 12, 8))}, {}),
    "two_engines": (TwoEngines, {"x": InputSpec((BATCH, 8)), "scale": InputSpec((1,))}, {}),
    "selection": (Selection, {"x": InputSpec((BATCH, 8))}, {}),
    "fallback": (
        Fallback,
        {"x": InputSpec((BATCH, 8, 16))},
        {"compile_options": {"torch_executed_ops": {torch.ops.aten.convolution.default}}},
    ),
}
CACHE: dict[str, tuple[nn.Module, Artifact]] = {}


def exported(name: str, folder: Path) -> tuple[nn.Module, Artifact]:
    """The module of that name, and its artifact; exported once."""
    if name not in CACHE:
        make, inputs, settings = SPECS[name]
        torch.manual_seed(0)
        module = make().eval()
        CACHE[name] = module, export_module(module, inputs, folder / f"{name}.windows.ep", **settings)
    return CACHE[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the artifacts are."""
    return tmp_path_factory.mktemp("rehearsal")


def arguments(name: str, batch: int) -> dict[str, Tensor]:
    """Arguments of one call, on the GPU."""
    generator = torch.Generator().manual_seed(batch)
    inputs = SPECS[name][1]
    shapes = {key: tuple(batch if d is BATCH else d for d in spec.shape) for key, spec in inputs.items()}
    return {
        key: torch.randn(shape, generator=generator).to(GPU, getattr(torch, inputs[key].dtype))
        for key, shape in shapes.items()
    }


def error(found: Any, wanted: Any) -> float:
    """Largest relative norm of the differences; structures, shapes and dtypes must be equal."""
    assert tree_structure(found) == tree_structure(wanted)
    errors = []
    for ours, theirs in zip(tree_leaves(found), tree_leaves(wanted)):
        assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
        a, b = ours.double(), theirs.double()
        errors.append(((a - b).norm() / b.norm().clamp_min(1e-12)).item())
    return max(errors)


@pytest.mark.parametrize("batch", [1, 8, 32])
@pytest.mark.parametrize("name", list(SPECS))
def test_like_eager(name: str, batch: int, folder: Path) -> None:
    """At the smallest, the usual and the largest batch; TensorRT may use TF32."""
    module, artifact = exported(name, folder)
    if name == "two_engines":
        assert len(artifact.manifest.engines) == 2
    given = arguments(name, batch)
    with torch.no_grad():
        wanted = copy.deepcopy(module).to(GPU)(**given)
    assert error(load(artifact.path, GPU)(**given), wanted) < 5e-3


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_weights_of_recurrent_nets_are_laid_out_for_cudnn(kind: str, tmp_path: Path) -> None:
    """Otherwise cuDNN copies them together in each call, and PyTorch says so each time."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = getattr(nn, kind)(8, 16, num_layers=2, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.relu() * 2)[0] + 1

    torch.manual_seed(0)
    module = Net().eval()
    inputs = {"x": InputSpec((BATCH, 40, 8))}
    artifact = export_module(module, inputs, tmp_path / "m.windows.ep", recurrent="pytorch")
    assert artifact.manifest.fallback_ops
    x = torch.randn(4, 40, 8)
    with torch.no_grad():
        wanted = module(x)
    loaded = load(artifact.path, GPU)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="RNN module weights")
        found = loaded(x.to(GPU))
    assert error(found.cpu(), wanted) < 5e-3


def test_other_streams(folder: Path) -> None:
    """The engine runs on the caller's stream: after what is in it, before what follows."""
    module, artifact = exported("resnet18", folder)
    loaded, given = load(artifact.path, GPU), arguments("resnet18", 8)
    with torch.no_grad():
        wanted = copy.deepcopy(module).to(GPU)(given["x"] * 2)
    torch.cuda.synchronize()
    for stream in (torch.cuda.Stream(), torch.cuda.default_stream()):
        with torch.cuda.stream(stream):
            x = torch.zeros_like(given["x"])
            torch.cuda._sleep(50_000_000)
            x += given["x"] * 2
            result = loaded(x) + 0
            x.zero_()
        stream.synchronize()
        assert error(result, wanted) < 5e-3


def test_two_streams_in_one_thread(folder: Path) -> None:
    """A context has one working memory, so that what it does on one stream waits for what it does on another."""
    module, artifact = exported("resnet18", folder)
    loaded, reference = load(artifact.path, GPU), copy.deepcopy(module).to(GPU)
    streams = [torch.cuda.Stream(), torch.cuda.default_stream(), torch.cuda.Stream()]
    given = [tree_map(lambda t, factor=n + 1: t * factor, arguments("resnet18", 8)) for n in range(3)]
    with torch.no_grad():
        wanted = [reference(**item) for item in given]
    torch.cuda.synchronize()
    results = []
    for n in [0, 1, 2, 2, 0, 1, 0, 2] * 5:
        with torch.cuda.stream(streams[n]):
            results.append((n, loaded(**given[n])))
    torch.cuda.synchronize()
    assert max(error(result, wanted[n]) for n, result in results) < 5e-3


def test_recorded_by_pytorch(folder: Path) -> None:
    """``torch.cuda.graph`` around a call, and calls on other streams before and after."""
    module, artifact = exported("digits", folder)
    loaded, reference = load(artifact.path, GPU), copy.deepcopy(module).to(GPU)
    given = arguments("digits", 8)
    loaded(**given)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        result = loaded(**given)
    other = tree_map(lambda t: t * 0.5, given)
    for item in (other, given):
        tree_map(lambda kept, new: kept.copy_(new), given, tree_map(torch.clone, item))
        recording.replay()
        with torch.no_grad():
            assert error(result, reference(**given)) < 5e-3
            assert error(loaded(**other), reference(**other)) < 5e-3


def test_many_threads(folder: Path) -> None:
    """A context for each thread; a stream for each, too."""
    module, artifact = exported("digits", folder)
    loaded, reference, errors = load(artifact.path, GPU), copy.deepcopy(module).to(GPU), []

    def work(batch: int) -> None:
        given = arguments("digits", batch)
        with torch.cuda.stream(torch.cuda.Stream()), torch.no_grad():
            wanted = reference(**given)
            errors.extend(error(loaded(**given), wanted) for _ in range(20))
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (1, 2, 8, 32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 80 and max(errors) < 5e-3


@pytest.mark.parametrize("name", ["digits", "two_engines"])
def test_cuda_graphs(name: str, folder: Path) -> None:
    """Recorded and replayed, with other inputs and other shapes in between."""
    module, artifact = exported(name, folder)
    loaded, reference = load(artifact.path, GPU, cuda_graphs=True), copy.deepcopy(module).to(GPU)
    for batch in (8, 8, 8, 1, 8, 32, 8):
        given = tree_map(lambda t: t * 0.5, arguments(name, batch))
        with torch.no_grad():
            assert error(loaded(**given), reference(**given)) < 5e-3


def test_the_runtime_cache_saves_compiling(folder: Path, tmp_path: Path) -> None:
    """The second start takes the kernels from the file."""
    _, artifact = exported("resnet18", folder)
    path, given, seconds = tmp_path / "cache", arguments("resnet18", 8), []
    for _ in range(2):
        started = time.perf_counter()
        loaded: LoadedModule = load(artifact.path, GPU, runtime_cache=path)
        loaded(**given)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        assert loaded.save_runtime_cache() == path and path.stat().st_size > 0
        del loaded
        gc.collect()
    print(f"first start {seconds[0]:.2f} s, second {seconds[1]:.2f} s")
    assert seconds[1] < seconds[0]


def test_overhead_of_a_call(folder: Path) -> None:
    """What Python adds to the bare execute_async_v3, for a model whose kernels take no time."""
    _, artifact = exported("digits", folder)
    loaded, given = load(artifact.path, GPU), arguments("digits", 1)
    execution = loaded._program.engine_0._threads.execution  # type: ignore[union-attr]

    def seconds(call: Any) -> float:
        best = float("inf")
        for _ in range(20):
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(50):
                call()
            best = min(best, (time.perf_counter() - started) / 50)
        return best

    with torch.cuda.stream(torch.cuda.Stream()):
        kept = loaded(**given)
        bare = seconds(lambda: execution.context.execute_async_v3(execution._streams.handle))
        ours = seconds(lambda: loaded(given["x"]))
    print(f"execute_async_v3 {bare * 1e6:.0f} us, a call {ours * 1e6:.0f} us")
    assert ours - bare < 50e-6, kept.shape


def test_memory_of_outputs_is_torch_s(folder: Path) -> None:
    """Calls leave nothing behind."""
    _, artifact = exported("selection", folder)
    loaded, given = load(artifact.path, GPU), arguments("selection", 32)
    loaded(**given)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        loaded(**given)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before
