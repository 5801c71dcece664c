"""Whatever stands in the files, reading them ends in a typed error or in success, in bounded time and memory.

Some hundred artifacts at every run of the tests; ``make fuzz`` tries 100,000. A failure names its seed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.fuzzing import Sample, mutated, sample_of
from support.stand_in import export_for_test
from torch import Tensor, nn

from lightning_trt_windows import DimRange, InputSpec, inspect
from lightning_trt_windows.artifact.artifact import read_artifact
from lightning_trt_windows.artifact.signing import check_signature
from lightning_trt_windows.errors import LightningTrtError
from lightning_trt_windows.runtime.loading import load_program
from lightning_trt_windows.verification.golden_file import read_goldens
from lightning_trt_windows.verification.verify import verify

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
SECONDS = 10.0
"""Of processor time, for one artifact of some 20 KB; 5 ms are usual."""
MEMORY = 1 << 30
"""Bytes beyond what the process has already."""


class Fallback(nn.Module):
    """An engine, an operator with weights in PyTorch, sizes that are computed, and a nested output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.register_buffer("offset", torch.randn(8))

    def forward(self, x: Tensor, more: dict[str, Tensor]) -> Any:
        y = self.conv(x.relu() * 2) + self.offset
        return {"y": y.reshape(-1, 8), "z": (more["a"] + 1, [x.shape[0]])}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A real artifact, taken apart."""
    torch.manual_seed(0)
    batch = DimRange(1, 2, 4, name="batch")
    inputs = {"x": InputSpec((batch, 4, 8)), "more": {"a": InputSpec((batch,), "int64")}}
    options = {"torch_executed_ops": {torch.ops.aten.convolution.default}}
    path = tmp_path_factory.mktemp("fuzz") / "m.windows.ep"
    return sample_of(export_for_test(Fallback().eval(), inputs, path, compile_options=options, golden=True).artifact)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the files of one example are, in memory if that can be."""
    shared = Path("/dev/shm")
    path = (
        shared if sys.platform == "linux" and shared.is_dir() else tmp_path_factory.getbasetemp()
    ) / f"fuzz-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", autouse=True)
def little_memory(sample: Sample) -> Iterator[None]:
    """What asks for too much gets a MemoryError, which is no typed error. Windows has no such limit."""
    if sys.platform == "win32":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
"""Somebody's."""


def not_run(record: Any, plan: memoryview) -> Any:
    """Stands for TensorRT, which is not fuzzed."""
    return lambda inputs: [torch.zeros(1)] * len(record.outputs)


def read_everything(path: Path) -> int:
    """All that reads artifacts; gives how many of them succeeded."""
    succeeded = 0
    for read in (
        lambda: (lambda found: json.dumps([found.to_dict(), str(found)]))(inspect(path, check=True)),
        lambda: load_program(read_artifact(path), torch.device("cpu"), not_run),
        lambda: read_goldens(read_artifact(path)),
        lambda: (lambda found: json.dumps([found.to_dict(), str(found)]))(verify(path, numbers=False)),
        lambda: check_signature(read_artifact(path), [KEY]),
    ):
        try:
            read()  # type: ignore[no-untyped-call]  # lambdas have no annotations
        except LightningTrtError as error:
            assert len(str(error)) < 100_000, "messages stay short"
        else:
            succeeded += 1
    return succeeded


def test_the_sample_itself_is_read(sample: Sample, folder: Path) -> None:
    """Before something is changed in it: so that what follows fails for its mutations."""
    for seed in range(1000):
        path = mutated(sample, seed, folder)
        if read_everything(path) >= 4:  # no signature
            return
    pytest.fail("no mutation in a thousand left the artifact readable: it was not readable to begin with")


@settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= 1000,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**63))
def test_every_file_ends_in_a_typed_error_or_success(sample: Sample, folder: Path, seed: int) -> None:
    """In bounded time and memory."""
    path = mutated(sample, seed, folder)
    # a machine that does other things at the same time is no fault; waiting for something is one
    computed, started = time.process_time(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_everything(path)
    assert time.process_time() - computed < SECONDS
    assert time.perf_counter() - started < 10 * SECONDS
