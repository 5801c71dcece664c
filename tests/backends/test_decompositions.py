"""Programs that are decomposed once for all their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.jobs import jobs_of
from torch import Tensor, nn
from torch.export import ExportedProgram

from lightning_trt_windows import DimRange, InputSpec
from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.backends import decompositions
from lightning_trt_windows.backends import engine as engine_module
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import build, prepare

BATCH = DimRange(1, 2, 8, name="batch")


class Convolutions(nn.Module):
    """BatchNorm, a residual, pooling; float32."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.head((x + self.two(x)).mean((2, 3)))


class Sizes(nn.Module):
    """Computes with sizes, and has a part that stays in PyTorch between two engines."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 4)
        self.register_buffer("scale", torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x) * self.scale
        x = torch.cat([x, x[:, : x.shape[1] // 2]], 1)
        x = x + torch.linalg.qr(x[:, :1, :].transpose(1, 2)).Q.transpose(1, 2)
        return self.two(x).reshape(x.shape[0] * x.shape[1], 4)


class Recurrent(nn.Module):
    """An LSTM over any length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


IMAGES = InputSpec((BATCH, 3, 16, 16))
SERIES = InputSpec((BATCH, DimRange(4, 8, 32, name="length"), 16))


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Each test begins in a process that has built nothing."""
    decompositions._kept.clear()
    yield
    decompositions._kept.clear()


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each decomposition of a whole program."""
    seen: list[str] = []
    real = ExportedProgram.run_decompositions

    def run(self: ExportedProgram, table: Any = None, **options: Any) -> ExportedProgram:
        seen.append("decomposed")
        return real(self, table, **options)

    monkeypatch.setattr(ExportedProgram, "run_decompositions", run)
    return seen


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str, str]]]:
    """Name, kind and shapes of each layer, of each network that an engine is built of."""
    seen: list[list[tuple[str, str, str]]] = []
    real = engine_module.serialized

    def serialized(blocks: Any, builder: Any, network: Any, *arguments: Any) -> memoryview | None:
        layers = [network.get_layer(number) for number in range(network.num_layers)]
        shapes = [[str(layer.get_output(number).shape) for number in range(layer.num_outputs)] for layer in layers]
        seen.append([(layer.name, layer.type.name, str(shape)) for layer, shape in zip(layers, shapes, strict=True)])
        return real(blocks, builder, network, *arguments)

    monkeypatch.setattr(engine_module, "serialized", serialized)
    return seen


CASES = pytest.mark.parametrize(
    ("module", "spec", "is_repeated"),
    [
        pytest.param(Convolutions, IMAGES, True, id="convolutions"),
        pytest.param(Sizes, SERIES, False, id="sizes"),
        pytest.param(Recurrent, SERIES, False, id="recurrent"),
    ],
)
"""The last says whether TensorRT-RTX gives the same bytes for the same network twice in one process."""


@CASES
def test_the_same_artifact(
    tmp_path: Path, decomposed: list[str], networks: list[Any], module: Any, spec: InputSpec, is_repeated: bool
) -> None:
    """Later builds give what a process gives that has built nothing before; each has its own weights."""
    jobs = jobs_of(module(), spec, tmp_path, 3)
    warm = [build(job).manifest for job in jobs]
    assert len(decomposed) == 1
    of_warm = list(networks)
    networks.clear()
    for job, before in zip(jobs, warm, strict=True):
        decompositions._kept.clear()
        fresh = build(job).manifest
        if is_repeated:
            assert fresh.engines == before.engines
        assert [e.size for e in fresh.engines] == [e.size for e in before.engines]
        # how much is compared in time depends on what else runs
        own = {name: getattr(before, name) for name in ("ep", "timings", "engines", "check")}
        assert replace(fresh, **own) == before
    assert networks == of_warm
    assert len({engine.sha256 for manifest in warm for engine in manifest.engines}) == 3 * len(warm[0].engines)


def test_weights_go(tmp_path: Path) -> None:
    """What is kept holds none."""
    for job in jobs_of(Convolutions(), IMAGES, tmp_path, 2):
        build(job)
        (kept,) = decompositions._kept.values()
        assert not kept.program.state_dict


def test_another_program(tmp_path: Path, decomposed: list[str]) -> None:
    """A file that is written again, other settings, weights of other strides: nothing is used again."""
    one, other = jobs_of(Convolutions(), IMAGES, tmp_path, 2)
    build(one)
    build(replace(other, settings=replace(other.settings, precision="16")))
    assert len(decomposed) == 2
    state = torch.load(tmp_path / "1.ckpt")
    state["state_dict"]["two.weight"] = state["state_dict"]["two.weight"].to(memory_format=torch.channels_last)
    torch.save(state, tmp_path / "1.ckpt")
    build(other)
    assert len(decomposed) == 3
    (tmp_path / "program.pt2").write_bytes((tmp_path / "program.pt2").read_bytes())
    build(one)
    assert len(decomposed) == 4
    assert len(decompositions._kept) == decompositions._MOST


def test_sizes_that_became_known_later(tmp_path: Path, decomposed: list[str]) -> None:
    """What a later step of an earlier build has noted about sizes does not reach the next build."""
    one, other = jobs_of(Sizes(), SERIES, tmp_path, 2)
    build(one)
    (kept,) = decompositions._kept.values()
    kept.facts = (*kept.facts[:2], kept.facts[2] + 1)
    build(other)
    assert len(decomposed) == 2


def test_programs_in_memory(tmp_path: Path, decomposed: list[str]) -> None:
    """They have no identity: each is decomposed."""
    module = Convolutions().eval()
    for _ in range(2):
        found = discover(module, inputs={"x": IMAGES})
        build(prepare(module, found, ArtifactPaths.of(tmp_path / "m.windows.ep"), ExportOptions()))
    assert len(decomposed) == 2
    assert not decompositions._kept
