"""From an entry of the zoo to an artifact, and calls at the smallest, usual and largest sizes and between them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from zoo.entry import Entry

from lightning_trt_windows.artifact.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.artifact.manifest import InputRecord
from lightning_trt_windows.artifact.shapes import InputSpec
from lightning_trt_windows.discovery.discover import Discovered, call_arguments, discover
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import build, prepare
from lightning_trt_windows.modules.containers import leaves, map_leaves, split
from lightning_trt_windows.modules.state import original
from lightning_trt_windows.settings import ExportSettings

__all__ = ["SIZES", "Exported", "allowed", "call", "difference", "export"]

SIZES = ("min", "opt", "max", "between")
"""Where artifacts are compared with eager."""


@dataclass
class Exported:
    """An entry that became an artifact."""

    entry: Entry
    module: nn.Module
    discovered: Discovered
    artifact: Artifact
    seconds: float


def export(entry: Entry, folder: Path) -> Exported:
    """Find the shapes, capture, compile, write."""
    module, data = entry.module(), entry.datamodule()
    started = time.perf_counter()
    options = ExportOptions(settings=ExportSettings(**entry.settings), method=entry.method)
    found = discover(module, inputs=entry.inputs, datamodule=data, options=entry.options, method=entry.method)
    job = prepare(module, found, ArtifactPaths.of(folder / f"{entry.name}.windows.ep"), options)
    artifact = build(job)
    names = {record.name for record in artifact.manifest.inputs}
    taken = (one for one in (found, *found.otherwise) if _tensor_names(one) == names)
    return Exported(entry, original(module), next(taken, found), artifact, time.perf_counter() - started)


def _tensor_names(found: Discovered) -> set[str]:
    return {name for name, leaf in leaves(found.inputs) if isinstance(leaf, InputSpec)}


def call(exported: Exported, size: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of one call, of the sizes that the manifest promises."""
    records = {record.name: record for record in exported.artifact.manifest.inputs}
    generator = torch.Generator().manual_seed(SIZES.index(size))

    def tensor(name: str, leaf: Any) -> Any:
        return _tensor(leaf, _shape(records[name], size), generator) if isinstance(leaf, InputSpec) else leaf

    arguments = {name: map_leaves(tree, tensor, name) for name, tree in exported.discovered.inputs.items()}
    exported.entry.repair(arguments)
    return call_arguments(getattr(exported.module, exported.entry.method), arguments)


def _shape(record: InputRecord, size: str) -> tuple[int, ...]:
    if size != "between":
        shape: tuple[int, ...] = getattr(record, size)
        return shape
    return tuple(_between(*bounds) for bounds in zip(record.min, record.opt, record.max))


def _between(low: int, opt: int, high: int) -> int:
    """A size that is none of the three, where there is one; in the steps that they share."""
    step = math.gcd(low, opt, high)
    inner = [n for n in range(low + step, high, step) if n != opt]
    return inner[len(inner) // 2] if inner else opt


def _tensor(spec: InputSpec, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    dtype = getattr(torch, spec.dtype)
    if dtype is torch.bool or spec.values == (0, 1):
        mask = torch.randint(0, 2, shape, generator=generator).to(dtype)
        if mask.dim():
            # a mask that leaves nothing over makes NaN of everything
            mask[..., 0] = 0 if dtype is torch.bool else 1
        return mask
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    low, high = spec.values or (0, 1)
    return torch.randint(int(low), int(high) + 1, shape, generator=generator, dtype=dtype)


def difference(found: Any, wanted: Any, where: str = "output") -> float:
    """The largest relative norm of a difference; containers, shapes, dtypes and what is no tensor must be equal."""
    parts, other = split(wanted), split(found)
    if parts is not None:
        assert other is not None and other.cls is parts.cls, f"{where} is {type(found)}, eager gives {parts.cls}"
        assert other.keys == parts.keys, f"{where} has {other.keys}, eager {parts.keys}"
        pairs = zip(parts.keys, other.children, parts.children)
        return max((difference(f, w, f"{where}.{key}") for key, f, w in pairs), default=0.0)
    if not isinstance(wanted, Tensor):
        assert found == wanted, f"{where} is {found!r}, eager gives {wanted!r}"
        return 0.0
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), (
        f"{where} is {found.dtype}{list(found.shape)}, eager gives {wanted.dtype}{list(wanted.shape)}"
    )
    if not wanted.numel():
        return 0.0
    ours, theirs = found.detach().double().cpu(), wanted.detach().double().cpu()
    assert theirs.isfinite().all(), f"{where}: eager itself is not finite"
    assert theirs.abs().max() > 1e-4 or not wanted.is_floating_point(), f"{where}: eager gives next to nothing"
    error = ((ours - theirs).norm() / theirs.norm().clamp_min(1e-12)).item()
    return error if math.isfinite(error) else math.inf


def allowed(output: Any) -> float:
    """How far from eager the same graph may be on the same processor, by the coarsest dtype that comes out."""
    coarsest = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
    found: list[float] = []
    map_leaves(output, lambda _, leaf: found.append(coarsest.get(getattr(leaf, "dtype", None), 1e-4)))
    return max(found, default=0.0)
