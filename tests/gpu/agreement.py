"""Whether engines on a GPU compute what the evaluator says of their networks.

    PYTHONPATH=tests python tests/gpu/agreement.py --workers 12 --seconds 400 --out agreement.jsonl

Networks are those of PyTorch's operator database (several samples of an operator in one module) and of the zoo. Each
engine gets the very inputs that its network was evaluated with, at several sizes. One JSON line per network: the
relative norm of the difference, the largest over its outputs and sizes; a table of them all at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from conformance.__main__ import samples_of, tasks
from conformance.cases import _resized, _Together, _varying
from conformance.samples import Sample
from support.evaluating import Evaluated, compile_evaluated
from torch import Tensor
from torch.export import Dim
from zoo.exporting import Exported, call
from zoo.models import ZOO

from lightning_trt_windows._compat.bindings import bindings
from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.artifact.manifest import EngineRecord, PayloadLocation
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.modules.state import original
from lightning_trt_windows.runtime.engine_runner import TensorRTRuntime
from lightning_trt_windows.settings import ExportSettings

GPU = torch.device("cuda:0")
ALLOWED = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""TensorRT-RTX multiplies float32 in TF32, and has no switch for it."""


def runtime() -> TensorRTRuntime:
    """With kernels that are not specialized for shapes, as ``load`` has it on a GPU that NVIDIA does not support."""
    return TensorRTRuntime(bindings("tensorrt_rtx"), GPU, specialization="none")


class Recorded:
    """A compiled program whose networks keep what they were evaluated with."""

    def __init__(self, evaluated: Evaluated) -> None:
        self.evaluated = evaluated
        self.calls: dict[str, list[tuple[list[Tensor], list[Tensor]]]] = {name: [] for name in evaluated.networks}
        for name, network in evaluated.networks.items():
            evaluated.networks[name] = self._keeping(name, network)

    def _keeping(self, name: str, network: Any) -> Any:
        def call(tensors: Any) -> Any:
            values, notes = network(tensors)
            self.calls[name].append(([t.clone() for t in tensors], [v.clone() for v in values]))
            return values, notes

        call.kinds = network.kinds  # type: ignore[attr-defined]
        return call

    def on_gpu(self, opened: TensorRTRuntime) -> Iterator[dict[str, Any]]:
        """For each engine, how far it is from its network."""
        for engine in self.evaluated.compiled.engines.values():
            record = EngineRecord(
                name=engine.name,
                size=len(engine.plan),
                sha256="0" * 64,
                inputs=engine.inputs,
                outputs=engine.outputs,
                location=PayloadLocation(member="x", offset=0, length=(len(engine.plan) + 2) // 3 * 4),
            )
            run = opened(record, engine.plan)
            errors: list[tuple[float, str]] = [(0.0, "")]
            for given, wanted in self.calls[engine.name]:
                found = run([t.to(GPU) for t in given])
                torch.cuda.synchronize()
                for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
                    where = f"output {place} {tuple(b.shape)} of {[tuple(t.shape) for t in given]}"
                    errors.append((distance(a.cpu(), b), where))
            worst = max(errors)
            kinds = sorted(self.evaluated.networks[engine.name].kinds)
            yield {"engine": engine.name, "error": worst[0], "where": worst[1], "outputs": len(errors) - 1, "kinds": kinds}


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative norm of the difference; 2 for another shape or type, 1 and more where one is finite and one is not."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return 2.0
    if wanted.numel() == 0:
        return 0.0
    if not wanted.is_floating_point():
        return float((found != wanted).double().mean())
    a, b = found.double(), wanted.double()
    alike = a.isfinite() & b.isfinite()
    same = alike | (a.isnan() & b.isnan()) | (a == b)
    if not same.all():
        return 1.0 + float((~same).double().mean())
    a, b = a[alike], b[alike]
    return float((a - b).norm() / b.norm().clamp_min(1e-6 * max(1, b.numel()) ** 0.5))


def of_samples(samples: list[Sample], mode: str) -> Recorded:
    """Compile samples as one module, and evaluate them at their own size and one more."""
    tensors = [tensor for sample in samples for tensor in sample.tensors]
    marks: list[dict[int, int]] = []
    for sample in samples:
        marks += (_varying(sample, mode) if mode != "static" else None) or [{} for _ in sample.tensors]
    names = [f"size{i}" for i, sample in enumerate(samples) for _ in sample.tensors]
    dims = {(name, n): Dim(f"{name}_{n}", min=1, max=2 * n) for name, mark in zip(names, marks) for n in mark.values()}
    shapes = tuple({axis: dims[name, n] for axis, n in mark.items()} or None for name, mark in zip(names, marks))
    first = torch.tensor([1.0, 2.0, 3.0])
    program = torch.export.export(
        _Together(samples).eval(),
        (first, *(t.clone() for t in tensors)),
        dynamic_shapes=None if mode == "static" else {"first": None, "tensors": shapes},
        strict=False,
    )
    recorded = Recorded(compile_evaluated(program, build=True))
    for change in (0,) if mode == "static" else (0, 1):
        recorded.evaluated(first, *(_resized(t, mark, change) for t, mark in zip(tensors, marks)))
    return recorded


def of_zoo(name: str) -> Recorded:
    """Compile a model of the zoo, and evaluate it at its smallest and usual sizes."""
    entry = ZOO[name]
    module, settings = entry.module(), ExportSettings(**entry.settings)
    found = discover(
        module, inputs=entry.inputs, datamodule=entry.datamodule(), options=entry.options, method=entry.method
    )
    job = prepare(module, found, ArtifactPaths.of(Path(f"/tmp/{name}.windows.ep")), settings, method=entry.method)
    recorded = Recorded(compile_evaluated(job.program, build=True, **entry.settings))
    artifact = SimpleNamespace(manifest=SimpleNamespace(inputs=job.inputs))
    exported = Exported(entry, original(module), found, artifact, 0.0)  # type: ignore[arg-type]  # its shapes only
    for size in ("min", "opt"):
        args, kwargs = call(exported, size)
        recorded.evaluated(*args, **kwargs)
    return recorded


def chosen(suites: list[str]) -> Iterator[tuple[str, Any]]:
    """Names of networks, and what makes each."""
    if "zoo" in suites:
        for name, entry in ZOO.items():
            if entry.refused is None:
                yield f"zoo {name} - -", lambda name=name: of_zoo(name)
    if "operators" not in suites:
        return
    for suite, name, dtype, item in tasks():
        for mode in {"float32": ("first", "static"), "float16": ("static",), "int64": ("first",)}.get(dtype, ()):
            if suite in ("operators", "modules"):
                yield f"{suite} {name} {dtype} {mode}", lambda s=suite, d=dtype, i=item, m=mode: _of_task(s, d, i, m)


def _of_task(suite: str, dtype: str, item: Any, mode: str) -> Recorded | None:
    samples = samples_of(suite, dtype, item, 3)
    if samples and mode != "static":
        samples = [sample for sample in samples if _varying(sample, mode)]
    return of_samples(samples, mode) if samples else None


def run(arguments: argparse.Namespace) -> None:
    """One part of the networks, until the time is up."""
    part, parts = (int(number) for number in arguments.part.split("/"))
    end = time.monotonic() + arguments.seconds
    opened = runtime()
    with arguments.out.open("a") as out:
        for number, (key, make) in enumerate(chosen(arguments.suite)):
            if number % parts != part or (arguments.only and not any(word in key for word in arguments.only)):
                continue
            if time.monotonic() > end:
                break
            started = time.perf_counter()
            try:
                with torch.no_grad():
                    recorded = make()
                    found = list(recorded.on_gpu(opened)) if recorded else []
            # refusals, which are no matter of this script, and whatever else: it is written down
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                print(json.dumps({"key": key, "failed": text}), file=out, flush=True)
                continue
            seconds = round(time.perf_counter() - started, 2)
            for record in found:
                print(json.dumps({"key": key, "seconds": seconds, **record}), file=out, flush=True)


def summary(records: list[dict[str, Any]]) -> str:
    """How many agree, and which do not."""
    compared = [record for record in records if "engine" in record and record["outputs"]]
    lines = [f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {len(compared)} networks compared"]
    far = []
    for record in compared:
        dtype = record["key"].split()[2]
        if record["error"] > ALLOWED.get(dtype, 1e-3):
            far.append(record)
    lines.append(f"{len(compared) - len(far)} agree, {len(far)} differ")
    lines += [f"{r['error']:.2e} {r['key']} {r['engine']}: {r['where']}" for r in sorted(far, key=lambda r: -r["error"])]
    failed = [record for record in records if "failed" in record]
    lines.append(f"{len(failed)} were refused or failed:")
    lines += [f"{record['key']}: {record['failed'][:160]}" for record in failed]
    return "\n".join(lines)


def main() -> None:
    """Run parts in processes beside each other, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--out", type=Path, default=Path("agreement.jsonl"))
    parser.add_argument("--suite", nargs="*", default=["zoo", "operators"])
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    if arguments.workers == 1:
        run(arguments)
        return
    files = [arguments.out.with_suffix(f".{part}.jsonl") for part in range(arguments.workers)]
    given = sys.argv[1:]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *given, "--workers", "1", "--part", f"{part}/{len(files)}", "--out", str(file)]
        )
        for part, file in enumerate(files)
    ]
    for process in started:
        process.wait()
    records = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    arguments.out.write_text("".join(json.dumps(record) + "\n" for record in records))
    for file in files:
        file.unlink(missing_ok=True)
    print(summary(records))


if __name__ == "__main__":
    main()
