"""Builds that are handed over: pickled jobs, weights from checkpoints, and processes that end badly."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support import building
from support.jobs import checkpoint, job
from support.lightning_models import Data, Regression

from lightning_trt_windows.artifact.artifact import ArtifactPaths, check_artifact, read_artifact
from lightning_trt_windows.artifact.files import sha256_of
from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.builds.executors.memory_limit import MemoryLimit
from lightning_trt_windows.builds.executors.process import BuildProcess, Inline
from lightning_trt_windows.builds.queue import remove_artifact
from lightning_trt_windows.builds.tracer import Tracer
from lightning_trt_windows.checkpoints import reader
from lightning_trt_windows.checkpoints.reader import read_checkpoint, read_weights
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.errors import CheckpointError, CompileError
from lightning_trt_windows.export.job import Job, SavedProgram
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import build, prepare
from lightning_trt_windows.export.reuse import existing
from lightning_trt_windows.settings import ExportSettings


class TestJob:
    """A job says all there is to build."""

    def test_pickled_with_its_program(self, tmp_path: Path) -> None:
        """A job with its program in memory is the same build after a journey through pickle."""
        module = Regression()
        prepared = prepare(
            module, discover(module, datamodule=Data()), ArtifactPaths.of(tmp_path / "m.ep"), ExportOptions()
        )
        travelled = pickle.loads(pickle.dumps(prepared))
        assert build(travelled).manifest.engines == build(prepared).manifest.engines

    def test_weights_of_the_checkpoint(self, tmp_path: Path) -> None:
        """One trace serves another checkpoint: the engine is that of a trace with those weights."""
        module, other = Regression(), Regression()
        traced = job(tmp_path, module)
        second = checkpoint(tmp_path / "b.ckpt", other)
        reused = replace(
            traced, program=SavedProgram(tmp_path / "program.pt2", second), paths=ArtifactPaths.beside(second)
        )
        own = prepare(other, discover(other, datamodule=Data()), ArtifactPaths.of(tmp_path / "own.ep"), ExportOptions())
        artifact = build(reused)
        assert artifact.manifest.engines == build(own).manifest.engines
        assert artifact.manifest.checkpoint is not None
        assert artifact.manifest.checkpoint.sha256 == sha256_of(second)
        assert artifact.manifest.engines != build(traced).manifest.engines

    @pytest.mark.parametrize(
        "module", [Regression(width=9), torch.nn.Linear(4, 1)], ids=["other shapes", "other names"]
    )
    def test_weights_of_another_module(self, tmp_path: Path, module: Any) -> None:
        """A checkpoint whose tensors are not those of the program is refused by name."""
        traced = job(tmp_path, Regression())
        checkpoint(tmp_path / "a.ckpt", module)
        with pytest.raises(CheckpointError, match=r"a\.ckpt"):
            build(traced)

    def test_skip_what_is_there(self, tmp_path: Path) -> None:
        """The same weights and the same request give the artifact that is there, in milliseconds."""
        asked = replace(job(tmp_path, Regression()), skip_existing=True)
        first = build(asked)
        written = first.path.stat().st_mtime_ns
        started = time.perf_counter()
        again = build(asked)
        assert time.perf_counter() - started < 0.25
        assert again == first
        assert first.path.stat().st_mtime_ns == written

    def test_do_not_skip_what_is_another(self, tmp_path: Path) -> None:
        """Other weights, other settings, a damaged file: built anew."""
        module = Regression()
        asked = replace(job(tmp_path, module), skip_existing=True)
        first = build(asked)
        with first.path.open("ab") as stream:
            stream.write(b"x")
        assert check_artifact(build(asked)).size == first.size
        checkpoint(tmp_path / "a.ckpt", Regression())
        second = build(asked)
        assert second.manifest.engines != first.manifest.engines
        narrower = job(tmp_path, Regression(), ExportSettings(compute_capabilities=("8.6",)))
        assert build(replace(narrower, skip_existing=True)).manifest.backend.compute_capabilities == ("8.6",)

    def test_other_code_is_another_request(self, tmp_path: Path) -> None:
        """A forward that was edited asks for another artifact."""

        class Edited(Regression):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) + 1

        assert job(tmp_path, Edited()).fingerprint != job(tmp_path, Regression()).fingerprint
        assert job(tmp_path, Regression()).fingerprint == job(tmp_path, Regression()).fingerprint

    def test_twin(self, tmp_path: Path) -> None:
        """A checkpoint with the weights of another one gets its own manifest and shares the engines."""
        asked = replace(job(tmp_path, Regression()), skip_existing=True)
        first = build(asked)
        content = torch.load(tmp_path / "a.ckpt")
        torch.save({**content, "callbacks": 1}, tmp_path / "last.ckpt")
        last = tmp_path / "last.ckpt"
        twin = replace(
            asked,
            paths=ArtifactPaths.beside(last),
            program=SavedProgram(tmp_path / "program.pt2", last),
            twins=(tmp_path / "a.ckpt",),
        )
        second = check_artifact(build(twin))
        assert second.path.samefile(first.path)
        assert second.manifest.checkpoint is not None
        assert second.manifest.checkpoint.sha256 == sha256_of(last)
        first.path.unlink()
        check_artifact(second)


class TestReads:
    """Gigabytes are read from slow disks."""

    @pytest.mark.parametrize("same", [True, False], ids=["same weights", "other weights"])
    def test_each_checkpoint_once(self, tmp_path: Path, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """One build, with a twin to compare with: each of the two files is hashed once and loaded once."""
        asked = replace(job(tmp_path, Regression()), skip_existing=True)
        build(asked)
        content = torch.load(tmp_path / "a.ckpt")
        other = content["state_dict"] if same else Regression().state_dict()
        torch.save({**content, "state_dict": other, "callbacks": 1}, tmp_path / "last.ckpt")
        paths = ArtifactPaths.beside(tmp_path / "last.ckpt")
        program = SavedProgram(tmp_path / "program.pt2", tmp_path / "last.ckpt")
        counts: Counter[str] = Counter()
        hashed, loaded = reader.sha256_of_stream, torch.load

        def counted_hash(stream: Any) -> str:
            counts[f"{Path(stream.name).name} hashed"] += 1
            return hashed(stream)

        def counted_load(stream: Any, *args: Any, **kwargs: Any) -> Any:
            counts[f"{Path(stream.name).name} loaded"] += 1
            return loaded(stream, *args, **kwargs)

        monkeypatch.setattr(reader, "sha256_of_stream", counted_hash)
        monkeypatch.setattr(torch, "load", counted_load)
        made = build(replace(asked, paths=paths, program=program, twins=(tmp_path / "a.ckpt",)))
        assert made.path.samefile(tmp_path / "a.windows.ep") == same
        assert counts == {f"{name}.ckpt {what}": 1 for name in ("a", "last") for what in ("hashed", "loaded")}

    def test_a_hash_that_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has looked for the artifact hands its hash on; it counts until the file is another one."""
        asked = replace(job(tmp_path, Regression()), skip_existing=True)
        build(asked)
        found, known = existing(asked)
        assert found is not None
        assert known.hashed is not None
        monkeypatch.setattr(reader, "sha256_of_stream", lambda stream: pytest.fail("hashed once more"))
        assert existing(known)[0] is not None
        monkeypatch.undo()
        checkpoint(tmp_path / "a.ckpt", Regression())
        assert existing(known)[0] is None

    def test_a_twin_that_goes_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A checkpoint that is deleted while its weights are compared has shared nothing: the other one is built."""
        asked = replace(job(tmp_path, Regression()), skip_existing=True)
        build(asked)
        content = torch.load(tmp_path / "a.ckpt")
        torch.save({**content, "callbacks": 1}, tmp_path / "last.ckpt")
        compare = reader.Checkpoint.same_weights

        def slow(one: Any, other: Any) -> bool:
            remove_artifact(tmp_path / "a.ckpt")
            return compare(one, other)

        monkeypatch.setattr(reader.Checkpoint, "same_weights", slow)
        program = SavedProgram(tmp_path / "program.pt2", tmp_path / "last.ckpt")
        paths = ArtifactPaths.beside(tmp_path / "last.ckpt")
        second = build(replace(asked, paths=paths, program=program, twins=(tmp_path / "a.ckpt",)))
        assert check_artifact(second).manifest.checkpoint is not None


class Dangerous:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("unpickled",)


def test_weights_without_running_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint of foreign classes gives its tensors; none of its code is run."""
    module = Regression()
    path = checkpoint(tmp_path / "a.ckpt", module, hyper_parameters={"x": Dangerous(), "path": tmp_path, "s": {1, 2}})
    read = read_weights(path)
    assert capsys.readouterr().out == ""
    assert read.same_weights(read_checkpoint(checkpoint(tmp_path / "b.ckpt", module)))
    assert (read.sha256, read.epoch, read.global_step) == (sha256_of(path), 0, 5)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 half an archive"])
def test_weights_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    """A damaged checkpoint is an error that names it."""
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        read_weights(tmp_path / "a.ckpt")


@pytest.fixture
def asked(tmp_path: Path) -> Job:
    """A job beside a checkpoint."""
    return job(tmp_path, Regression())


class TestTracer:
    """One trace for all checkpoints that differ in nothing but weights."""

    @pytest.mark.parametrize(
        ("method", "argument"), [("forward", "x"), ("score", "x"), ("net", "input"), ("inner.scaled", "x")]
    )
    @pytest.mark.parametrize("compiled", [False, True])
    def test_second_checkpoint(self, tmp_path: Path, method: str, argument: str, compiled: bool) -> None:
        """It is not captured again, and its program has its weights, whatever part of the module is exported."""

        class Inner(torch.nn.Linear):
            def scaled(self, x: torch.Tensor) -> torch.Tensor:
                return 2 * self(x)

        class Module(Regression):
            def __init__(self) -> None:
                super().__init__()
                self.inner = Inner(4, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(self.inner(x))

            def score(self, x: torch.Tensor) -> torch.Tensor:
                return self(x).sigmoid()

        module = Module().eval()
        if compiled:
            module.net.compile()
        inputs = {argument: InputSpec((DimRange(1, 4, 8), 4))}
        tracer = Tracer(ExportOptions(method=method))
        x = torch.randn(4, 4)
        for name in ("a", "b"):
            torch.nn.init.normal_(module.inner.weight)
            torch.nn.init.normal_(module.net[0].weight)
            made = tracer.job(
                module,
                checkpoint(tmp_path / f"{name}.ckpt", module),
                tracer.snapshot(module, lambda: discover(module, inputs=inputs, method=method), step=1),
                (),
            )
            program, _ = made.load()
            wanted = module
            for part in [] if method == "forward" else method.split("."):
                wanted = getattr(wanted, part)
            with torch.compiler.set_stance("force_eager"):
                torch.testing.assert_close(program.module()(x), wanted(x))
        assert tracer.traced == 1
        tracer.close()


class TestBuildProcess:
    """A process that takes one build after the other."""

    def test_builds(self, asked: Job, tmp_path: Path) -> None:
        """It builds what this process would have built, and leaves nothing else."""
        executor = BuildProcess()
        artifact = executor.submit(build, asked).result()
        executor.shutdown()
        assert check_artifact(artifact).manifest.engines == Inline().submit(build, asked).result().manifest.engines
        assert {p.name for p in tmp_path.iterdir()} == {"a.ckpt", "program.pt2", "a.windows.ep", "a.windows.json"}

    def test_surroundings(self, asked: Job) -> None:
        """Builds have a process besides this one, of low priority and without a GPU."""
        executor = BuildProcess(niceness=7, workers=1)
        futures = [executor.submit(building.surroundings, asked) for _ in range(2)]
        one, two = [f.result() for f in futures]
        executor.shutdown()
        assert one["pid"] == two["pid"] != building.os.getpid()
        assert (one["gpus"], one["cuda"], one["niceness"]) == ("", False, min(19, building.os.nice(0) + 7))
        assert one["first to go"] == "1000"  # when memory runs out

    @pytest.mark.parametrize(
        ("function", "words"),
        [(building.crash, "SIGSEGV"), (building.killed, "SIGKILL.*memory"), (building.hang, "in 3 s.*build_deadline")],
    )
    def test_ends_badly(self, asked: Job, function: Any, words: str) -> None:
        """A crash, a kill and a hang are errors that say so, with a log beside the artifact; the next build works."""
        # a busy machine takes longer than that to begin
        executor = BuildProcess(deadline=3 if function is building.hang else None)
        future = executor.submit(function, asked)
        with pytest.raises(CompileError, match=f"(?s){words}.*a.windows.failed/ has its log"):
            future.result()
        assert (asked.paths.failed / "log.txt").exists()
        executor.deadline = None
        artifact = executor.submit(build, asked).result()
        executor.shutdown()
        check_artifact(artifact)
        assert not asked.paths.failed.exists()

    def test_takes_too_much_memory(self, asked: Job) -> None:
        """It is ended before the machine is full, and the message says how much it took and might have taken."""
        executor = BuildProcess(memory=2.5)
        with pytest.raises(CompileError, match=r"took [2-3]\.\d GB of memory, may take 2\.5 GB.*build_memory"):
            executor.submit(building.devours, asked).result()
        executor.shutdown()

    def test_may_take_most_of_what_is_free(self) -> None:
        """Unless it is told otherwise; and the message says so."""
        limit = MemoryLimit()
        assert 0.5 < limit.bytes / psutil.virtual_memory().available < 1
        assert limit.exceeded(building.os.getpid()) == ""
        limit.bytes = 1
        assert "four fifths of what was free" in limit.exceeded(building.os.getpid())

    def test_failure_can_be_repeated(self, asked: Job, tmp_path: Path) -> None:
        """A build that fails leaves a script that fails in the same way, also in another place."""
        checkpoint(tmp_path / "a.ckpt", Regression(width=9))
        executor = BuildProcess()
        with pytest.raises(CheckpointError) as error:
            executor.submit(build, asked).result()
        executor.shutdown()
        (tmp_path / "program.pt2").unlink()
        moved = shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"))
        script = moved / "a.windows.failed" / "reproduce.py"
        again = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
        assert str(error.value) in again.stderr
        checkpoint(moved / "a.ckpt", Regression())
        subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
        check_artifact(read_artifact(moved / "a.windows.ep"))

    def test_cancelled(self, asked: Job, tmp_path: Path) -> None:
        """What is queued is taken off, what runs is killed, and neither leaves a file."""
        executor = BuildProcess(workers=1)
        running, queued = executor.submit(building.hang, asked), executor.submit(build, asked)
        while running.process is None:  # type: ignore[attr-defined]
            time.sleep(0.05)
        assert running.cancel()
        assert queued.cancel()
        with pytest.raises(CompileError, match="cancelled"):
            running.result()
        with pytest.raises(CancelledError):
            queued.result()
        executor.shutdown()
        assert {p.name for p in tmp_path.iterdir()} == {"a.ckpt", "program.pt2"}
