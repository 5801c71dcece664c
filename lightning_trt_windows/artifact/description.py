"""What ``inspect`` says about an artifact, as sections that are printed as plain text or as tables.

Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_trt_windows.artifact.engine_header import EngineHeader
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.manifest import CheckpointRecord, InputRecord, LeftToPyTorch, Manifest
from lightning_trt_windows.artifact.shapes import shape_text

__all__ = ["GEFORCE", "Description", "Section", "as_text", "described", "printable", "source_text", "value_texts"]

_BACKENDS = {"tensorrt_rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}
GEFORCE = {"7.5": "RTX 20", "8.6": "RTX 30", "8.9": "RTX 40", "12.0": "RTX 50"}
"""Series of GeForce cards by compute capability."""
_LOADERS = ("torch", "torch-tensorrt-rtx", "torch-tensorrt")


@dataclass(frozen=True)
class Section:
    """A table."""

    title: str
    """Empty for what stands first."""
    rows: tuple[tuple[str, ...], ...]
    """Cells, as many in each row."""
    heads: tuple[str, ...] = ()
    """Heads of the columns; none where they need none."""
    numbers: tuple[int, ...] = ()
    """Columns that are aligned to the right."""
    bad: bool = False
    """Whether it tells of something wrong."""


@dataclass(frozen=True)
class Description:
    """Everything there is to say."""

    title: str
    sections: tuple[Section, ...]


def described(
    manifest: Manifest, title: str, *, headers: Mapping[str, EngineHeader], checked: bool, issues: Sequence[str]
) -> Description:
    """Describe an artifact for people.

    Args:
        manifest: What the export wrote down.
        title: Name of the artifact.
        headers: What each engine says about itself, by name of the engine.
        checked: Whether content was compared with the hashes in the manifest.
        issues: All that was found to be wrong.

    Returns:
        The description, for ``as_text`` or a page.
    """
    glance = "none" if checked else "none at a glance; --check compares every byte"
    sections = [
        Section("", tuple(_summary(manifest, headers))),
        Section("Inputs", tuple((i.name, i.dtype, _shape(i), source_text(i)) for i in manifest.inputs)),
        Section("Ranges", tuple(_ranges(manifest.inputs)), ("", "min", "opt", "max", ""), numbers=(1, 2, 3)),
        Section("Outputs", tuple((o.name, o.dtype, shape_text(o.shape)) for o in manifest.outputs)),
        Section("Engines", tuple(_engines(manifest, headers)), numbers=(1,)),
        Section("Fallback to PyTorch", tuple((op,) for op in manifest.fallback_ops) or (("nothing",),)),
        Section("Built with", tuple(sorted(manifest.versions.items()))),
        Section(
            "Fallback to PyTorch, because TensorRT would compute something else",
            tuple((f"{item.operator} {item.line}".strip(), item.reason) for item in _left(manifest)),
        ),
        Section("Verification", tuple(_verification(manifest.verification or {}))),
        Section("Extra", tuple(value_texts(manifest.extra))),
        Section("Notes", tuple((note,) for note in manifest.notes)),
        Section("Issues", tuple((issue,) for issue in issues) or ((glance,),), bad=bool(issues)),
    ]
    return Description(title, tuple(section for section in sections if section.rows))


def _left(manifest: Manifest) -> tuple[LeftToPyTorch, ...]:
    return manifest.check.left_to_pytorch if manifest.check else ()


def as_text(description: Description) -> str:
    """Plain text with aligned columns, for pipes and files."""
    lines = [description.title]
    for section in description.sections:
        lines += ["", section.title] if section.title else []
        heads = [section.heads] if section.heads else []
        lines += _columns([*heads, *section.rows], section.numbers)
    return "\n".join(printable(line) for line in lines)


def printable(line: str) -> str:
    """``line`` as it may reach a terminal: texts in a manifest come from elsewhere, and none may move the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _columns(rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...] = ()) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.rjust(w) if i in numbers else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        yield "  " + "  ".join(cells).rstrip()


def _summary(manifest: Manifest, headers: Mapping[str, EngineHeader]) -> Iterator[tuple[str, ...]]:
    timings = manifest.timings
    yield "kind", f"{_BACKENDS.get(manifest.backend.name, manifest.backend.name)} engines for Windows"
    if manifest.checkpoint:
        yield "checkpoint", _checkpoint(manifest.checkpoint)
    engines = sum(engine.size for engine in manifest.engines)
    yield "size", f"{readable_size(manifest.ep.size)}, {readable_size(engines)} of it engines before base64"
    if manifest.operators:
        yield "operators", _operators(manifest)
    yield "GPUs", _gpus(manifest, headers)
    yield "needs", _needs(manifest, headers)
    if manifest.check:
        yield "numbers", str(manifest.check)
    if manifest.golden:
        yield "goldens", f"{manifest.golden.file} ({readable_size(manifest.golden.size)})"
    if manifest.onnx:
        yield "ONNX", ", ".join(f"{record.file} ({readable_size(record.size)})" for record in manifest.onnx)
    yield (
        "export took",
        f"{timings.capture:.1f} s capture, {timings.compile:.1f} s compile, {timings.write:.1f} s write",
    )
    yield "format", manifest.format_version


def _checkpoint(record: CheckpointRecord) -> str:
    counts = [f"{word} {n}" for word, n in (("epoch", record.epoch), ("step", record.global_step)) if n is not None]
    counts += [f"{score.monitor} {score.value:.6g}" for score in record.scores]
    return record.file + (f" ({', '.join(counts)})" if counts else "")


def _operators(manifest: Manifest) -> str:
    assert manifest.operators is not None
    inside, outside = manifest.operators.tensorrt, manifest.operators.pytorch
    return f"{inside} of {inside + outside} in TensorRT, {outside} in PyTorch"


def _gpus(manifest: Manifest, headers: Mapping[str, EngineHeader]) -> str:
    """Compute capabilities that all engines run on: from their headers, else from the manifest."""
    of_engines = [header.compute_capabilities for header in headers.values()]
    common = [c for c in of_engines[0] if all(c in each for each in of_engines)] if of_engines else []
    names = common or manifest.backend.compute_capabilities
    if not names:
        return "not recorded"
    return "compute capability " + ", ".join(f"{name} ({GEFORCE[name]})" if name in GEFORCE else name for name in names)


def _needs(manifest: Manifest, headers: Mapping[str, EngineHeader]) -> str:
    """The versions a loader must have: the format of a saved program and of an engine are tied to them."""
    versions = manifest.versions
    minors = [f"{name} {'.'.join(versions[name].split('.')[:2])}" for name in _LOADERS if name in versions]
    runtimes = {".".join(map(str, header.version[:3])) for header in headers.values()}
    return ", ".join([*minors, *(f"TensorRT-RTX {version}" for version in sorted(runtimes))]) or "not recorded"


def source_text(record: InputRecord) -> str:
    """Where the shape of an input comes from, and why."""
    return f"{record.source.kind}: {record.source.reason}" if record.source.reason else record.source.kind


def _shape(record: InputRecord) -> str:
    return shape_text(symbol or size for symbol, size in zip(record.symbols, record.opt))


def _ranges(inputs: Sequence[InputRecord]) -> Iterator[tuple[str, ...]]:
    """A row for each dynamic dimension, with all the axes that have it."""
    where: dict[str, list[str]] = {}
    bounds: dict[str, tuple[int, int, int]] = {}
    steps: dict[str, int] = {}
    for record in inputs:
        for axis, symbol in enumerate(record.symbols):
            if symbol is not None:
                where.setdefault(symbol, []).append(f"{record.name} axis {axis}")
                bounds[symbol] = record.min[axis], record.opt[axis], record.max[axis]
                steps[symbol] = record.multiple_of[axis] if record.multiple_of else 1
    for symbol, axes in where.items():
        low, opt, high = bounds[symbol]
        step = [f"multiples of {steps[symbol]}"] if steps[symbol] > 1 else []
        yield symbol, str(low), str(opt), str(high), ", ".join([*axes, *step])


def _engines(manifest: Manifest, headers: Mapping[str, EngineHeader]) -> Iterator[tuple[str, ...]]:
    for engine in manifest.engines:
        header = headers.get(engine.name)
        version = f"TensorRT-RTX {'.'.join(map(str, header.version))}" if header else ""
        bindings = f"{', '.join(engine.inputs)} -> {', '.join(engine.outputs)}"
        yield engine.name, readable_size(engine.size), bindings, version


def _verification(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was found; of each call that was compared whether it passed. All the figures are in the JSON."""
    calls = found.get("calls")
    ours = isinstance(calls, list) and all(isinstance(call, dict) and "passed" in call for call in calls)
    yield from value_texts({key: value for key, value in found.items() if key != "calls" or not ours})
    for call in calls if ours and calls else ():
        yield f"call {call.get('name')}", "passed" if call["passed"] is True else "failed"


def value_texts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each key of free-form JSON with its value as text."""
    for key, value in values.items():
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
