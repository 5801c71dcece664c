"""Whether engines on a GPU compute what the evaluator says of their networks.

    PYTHONPATH=tests python tests/gpu/agreement.py --workers 12 --seconds 400 --out agreement.jsonl

Networks are those of PyTorch's operator database (several samples of an operator in one module) and of the zoo. Each
engine gets the very inputs that its network was evaluated with, at several sizes. One JSON line per network: the
relative norm of the difference, the largest over its outputs and sizes; a table of them all at the end.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from conformance.cases import _Together, _varying
from conformance.running import samples_of, tasks
from conformance.samples import Sample
from parts import Work, main
from support.evaluating import Evaluated, compile_evaluated
from torch import Tensor
from torch.export import Dim
from zoo.exporting import Exported, call
from zoo.models import ZOO

from lightning_trt_windows._compat.bindings import bindings
from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.artifact.manifest import EngineRecord, PayloadLocation
from lightning_trt_windows.discovery.discover import discover
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.modules.state import original
from lightning_trt_windows.runtime.engine_runner import TensorRTRuntime
from lightning_trt_windows.settings import ExportSettings

GPU = torch.device("cuda:0")
ALLOWED = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""TensorRT-RTX multiplies float32 in TF32, and has no switch for it."""
AS_PYTORCH = 3.0
"""Times the error of PyTorch with TF32 on the same GPU: random weights amplify what rounding costs."""


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
            graph = copy.deepcopy(self.evaluated.partitions[engine.name]).to(GPU)
            in_tf32 = 0.0
            for given, wanted in self.calls[engine.name]:
                found = run([t.to(GPU) for t in given])
                torch.cuda.synchronize()
                for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
                    where = f"output {place} {tuple(b.shape)} of {[tuple(t.shape) for t in given]}"
                    errors.append((distance(a.cpu(), b), where))
                    if errors[-1][0] > 1:
                        where += f": {a.flatten()[:4].tolist()}, evaluated {b.flatten()[:4].tolist()}"
                        errors[-1] = (errors[-1][0], where)
                in_tf32 = max(in_tf32, with_tf32(graph, given, wanted))
            worst = max(errors)
            kinds = sorted(self.evaluated.networks[engine.name].kinds)
            yield {
                "engine": engine.name,
                "error": worst[0],
                "where": worst[1],
                "outputs": len(errors) - 1,
                "kinds": kinds,
            }


def with_tf32(graph: torch.fx.GraphModule, given: list[Tensor], wanted: list[Tensor]) -> float:
    """How far PyTorch on the GPU is from the evaluator, multiplying in TF32 as the engine does; 0 where it cannot."""
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        results = graph(*(t.to(GPU) for t in given))
    # constants of the graph are on the CPU, or it computes with sizes
    except Exception:
        return 0.0
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    results = results if isinstance(results, (tuple, list)) else (results,)
    pairs = ((a, b) for a, b in zip(results, wanted) if isinstance(a, Tensor))
    return max((distance(a.cpu(), b) for a, b in pairs), default=0.0)


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
        recorded.evaluated(first, *(longer(t, mark, change) for t, mark in zip(tensors, marks)))
    return recorded


def longer(tensor: Tensor, mark: dict[int, int], change: int) -> Tensor:
    """``tensor`` with its varying axes longer by ``change``."""
    for axis, n in mark.items():
        tensor = tensor.index_select(axis, torch.arange(n + change) % n)
    return tensor


def of_zoo(name: str) -> Recorded:
    """Compile a model of the zoo, and evaluate it at its smallest and usual sizes."""
    entry = ZOO[name]
    module, settings = entry.module(), ExportSettings(**entry.settings)
    found = discover(
        module, inputs=entry.inputs, datamodule=entry.datamodule(), options=entry.options, method=entry.method
    )
    job = prepare(
        module,
        found,
        ArtifactPaths.of(Path(f"/tmp/{name}.windows.ep")),
        ExportOptions(settings=settings, method=entry.method),
    )
    recorded = Recorded(compile_evaluated(job.program, build=True, **entry.settings))
    artifact = SimpleNamespace(manifest=SimpleNamespace(inputs=job.inputs))
    exported = Exported(entry, original(module), found, artifact, 0.0)  # type: ignore[arg-type]  # its shapes only
    for size in ("min", "opt"):
        args, kwargs = call(exported, size)
        recorded.evaluated(*args, **kwargs)
    return recorded


def chosen(arguments: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    """Names of networks, and what compares each."""
    opened = runtime()

    def compared(make: Callable[[], Recorded | None]) -> list[dict[str, Any]]:
        recorded = make()
        return list(recorded.on_gpu(opened)) if recorded else []

    if "zoo" in arguments.suite:
        for name, entry in ZOO.items():
            if entry.refused is None:
                yield f"zoo {name} - -", partial(compared, partial(of_zoo, name))
    if "operators" not in arguments.suite:
        return
    for suite, name, dtype, item in tasks():
        for mode in {"float32": ("first", "static"), "float16": ("static",), "int64": ("first",)}.get(dtype, ()):
            if suite in ("operators", "modules"):
                yield f"{suite} {name} {dtype} {mode}", partial(compared, partial(of_task, suite, dtype, item, mode))


def of_task(suite: str, dtype: str, item: Any, mode: str) -> Recorded | None:
    """Some samples of an operator or a module; ``None`` where there are none that do not draw random numbers."""
    samples = samples_of(suite, dtype, item, 3)
    if samples and mode != "static":
        samples = [sample for sample in samples if _varying(sample, mode)]
    return of_samples(samples, mode) if samples else None


def summary(records: list[dict[str, Any]]) -> str:
    """How many agree, and which do not."""
    compared = [record for record in records if record.get("outputs")]
    lines = [f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {len(compared)} networks compared"]
    far = [record for record in compared if record["error"] > ALLOWED.get(record["key"].split()[2], 1e-3)]
    rounded = [record for record in far if record["error"] <= AS_PYTORCH * record["in_tf32"]]
    far = [record for record in far if record not in rounded]
    lines.append(f"{len(compared) - len(far) - len(rounded)} agree, {len(far)} differ")
    lines.append(f"{len(rounded)} are as far as PyTorch is in TF32, within a factor of {AS_PYTORCH:g}:")
    lines += [f"{r['error']:.2e} {r['in_tf32']:.2e} {r['key']} {r['engine']}" for r in rounded]
    lines.append("different:")
    lines += [
        f"{r['error']:.2e} {r['in_tf32']:.2e} {r['key']} {r['engine']}: {r['where']}"
        for r in sorted(far, key=lambda r: -r["error"])
    ]
    failed = [record for record in records if "failed" in record]
    lines.append(f"{len(failed)} were refused or failed:")
    lines += [f"{record['key']}: {record['failed'][:160]}" for record in failed]
    return "\n".join(lines)


if __name__ == "__main__":
    found = main(__doc__, chosen, ("zoo", "operators"))
    if found is not None:
        print(summary(found))
