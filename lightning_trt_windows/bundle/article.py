"""One artifact on the page of ``report``: pictures first, hashes last. Standard library only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.description import source_text, value_texts
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.manifest import CheckRecord, InputRecord, Manifest
from lightning_trt_windows.artifact.shapes import shape_text
from lightning_trt_windows.bundle.areas import area_figure, area_of
from lightning_trt_windows.bundle.bench_file import read_bench
from lightning_trt_windows.bundle.charts import Error, Line, error_figure, line_figure
from lightning_trt_windows.bundle.figures import Amount, Range, amounts_figure, range_figure, shares
from lightning_trt_windows.bundle.strip import segments_of, strip_figure
from lightning_trt_windows.bundle.texts import gpus_of, range_of

__all__ = ["article", "in_tensorrt", "table", "verdict"]

_RANGE_KEY = (
    '<ul class="legend"><li><span class="key band-key"></span>the range</li>'
    '<li><span class="key opt-key"></span>the size it is tuned for</li>'
    '<li><span class="key seen-key"></span>sizes that were seen: the higher or larger, the more often</li></ul>'
)
_ERROR_KEY = (
    '<ul class="legend"><li><span class="key one"></span>error</li>'
    '<li><span class="key bad-key"></span>allowed, where the manifest says; a red dot is beyond it</li></ul>'
)
_SIDES = {
    "load": ("load", "one"),
    "eager": ("PyTorch", "two"),
    "onnxruntime": ("ONNX Runtime, with copies to the GPU and back", "three"),
    "onnxruntime_gpu": ("ONNX Runtime, tensors on the GPU", "data"),
}
"""Who ran a model, with the name that is shown and the colour."""


def article(artifact: Artifact, name: str, roles: Sequence[str], number: int, figures: Iterator[int]) -> str:
    """HTML of one artifact, folded where it is not the first.

    Args:
        artifact: The artifact.
        name: What it is called on the page.
        roles: ``last``, ``best by val_acc``.
        number: Of the artifact on the page, from 0.
        figures: Gives each figure its number.

    Returns:
        The HTML.
    """
    manifest = artifact.manifest
    parts = [
        f'<p class="verdict">{_summary(manifest)}</p>',
        *_numbers(manifest, figures),
        *_speed(artifact, figures),
        *_inputs(manifest, figures),
        *_program(artifact, figures),
        *_times(manifest),
        *_rest(manifest),
        *_about(manifest, roles),
    ]
    kept = f'<span class="soft">{escape(", ".join(roles))}</span>' if roles else ""
    return (
        f'<article id="artifact-{number}" aria-labelledby="heading-{number}"><details{"" if number else " open"}>'
        f'<summary><h2 id="heading-{number}">{escape(name)}</h2>{kept}</summary>{"".join(parts)}</details></article>'
    )


def _summary(manifest: Manifest) -> str:
    """What a reader wants to know first, in a line."""
    engines = len(manifest.engines)
    said = [f"{engines} engine{'' if engines == 1 else 's'}", readable_size(manifest.ep.size)]
    if manifest.operators:
        said.append(f"{in_tensorrt(manifest)} of the operators in TensorRT")
    if manifest.backend.compute_capabilities:
        said.append(f"for {escape(gpus_of(manifest))}")
    return " · ".join(said)


def _numbers(manifest: Manifest, figures: Iterator[int]) -> Iterator[str]:
    yield "<h3>Numbers</h3>"
    if manifest.check:
        yield from _check(manifest.check, figures)
    else:
        yield "<p>Not compared with the module while it was exported.</p>"
    if manifest.verification is None:
        if manifest.golden:
            yield "<p>Goldens were recorded: <code>lightning-trt-windows verify</code> compares with them on a GPU.</p>"
        return
    yield f"<p>Verified with real engines: {verdict(manifest)}</p>"
    errors = list(_verified(manifest.verification.get("calls")))
    if errors:
        caption = "<strong>Engines on a GPU</strong> relative norm of the difference from what the module gave"
        yield error_figure(caption, errors, next(figures)) + _ERROR_KEY
    rows = [[escape(key), escape(value)] for key, value in value_texts(manifest.verification) if key != "calls"]
    yield table("What was found", ["What", "Value"], rows, wide=(1,))
    if calls := list(_calls(manifest.verification.get("calls"))):
        heads = ["Call", "Output", "Relative norm", "Allowed", "Largest difference", ""]
        yield table("Calls that were compared", heads, calls, numbers=(2, 3, 4))


def _check(check: CheckRecord, figures: Iterator[int]) -> Iterator[str]:
    if check.compared:
        errors = []
        for compared in check.compared:
            sizes = ", ".join(f"{name} {size}" for name, size in compared.sizes.items())
            at = f"{compared.name} ({sizes})" if sizes else compared.name
            errors.append(Error(at, max(compared.lowered, compared.engines)))
        caption = (
            "<strong>Checked at the export, without a GPU</strong> relative norm of the difference between what the "
            "engines' networks compute and what the module does"
        )
        yield error_figure(caption, errors, next(figures))
    yield "".join(f"<p>Not compared: {escape(sentence)}.</p>" for sentence in check.not_checked)
    if check.left_to_pytorch:
        rows = [[escape(left.operator), escape(left.line), escape(left.reason)] for left in check.left_to_pytorch]
        heads = ["Operator", "Line of the model", "What TensorRT would have computed"]
        yield "<p>These fall back to PyTorch, because TensorRT would have computed something else:</p>"
        yield table("Fallback to PyTorch", heads, rows, wide=(1, 2))


def _verified(calls: Any) -> Iterator[Error]:
    """Errors in a verification as this package writes it."""
    for call in calls if isinstance(calls, list) else ():
        outputs = call.get("outputs") if isinstance(call, dict) else None
        for output in outputs if isinstance(outputs, list) else ():
            if isinstance(output, dict) and isinstance(output.get("relative_norm"), float):
                allowed = output.get("allowed")
                name = f"{call.get('name', '')} {output.get('name', '')}"
                yield Error(name, output["relative_norm"], allowed if isinstance(allowed, float) else None)


def _speed(artifact: Artifact, figures: Iterator[int]) -> Iterator[str]:
    found = read_bench(artifact)
    if found is None:
        return
    yield "<h3>How fast</h3>"
    where = escape("; ".join(part for part in (found.device, found.versions) if part))
    yield f"<p>Measured with <code>lightning-trt-windows bench</code> on {where}.</p>"
    for what, unit, values in (
        ("Latency", "ms", found.latency),
        ("Throughput", "samples a second", found.throughput),
    ):
        lines = [Line(shown, values[key], kind) for key, (shown, kind) in _SIDES.items() if key in values]
        caption = f"<strong>{what}</strong> {'median, ' if unit == 'ms' else ''}{unit}, over the batch"
        if lines:
            yield line_figure(caption, lines, next(figures), across="batch", unit=unit, logarithmic=True)


def _inputs(manifest: Manifest, figures: Iterator[int]) -> Iterator[str]:
    yield "<h3>Inputs</h3>"
    if ranges := list(_ranges_of(manifest.inputs)):
        yield _RANGE_KEY
        for record in manifest.inputs:
            if area := area_of(record):
                yield area_figure(area, next(figures), record.name)
        yield from (range_figure(dimension, next(figures)) for dimension in ranges)
    yield table(
        "What the program takes",
        ["Name", "dtype", "Shape", "Where the shape is from"],
        [[*map(escape, (i.name, i.dtype, range_of(i), source_text(i)))] for i in manifest.inputs],
        wide=(2, 3),
    )
    yield "<h3>Outputs</h3>"
    yield table(
        "What the program returns",
        ["Name", "dtype", "Shape"],
        [[*map(escape, (o.name, o.dtype, shape_text(o.shape)))] for o in manifest.outputs],
    )


def _ranges_of(inputs: Iterable[InputRecord]) -> Iterator[Range]:
    """The dynamic dimensions, each once with all the axes that have it."""
    found: dict[str, Range] = {}
    for record in inputs:
        for axis, symbol in enumerate(record.symbols):
            if symbol is None:
                continue
            before = found.get(symbol)
            sizes = record.source.sizes[axis] if record.source.sizes else {}
            found[symbol] = Range(
                symbol,
                (*(before.axes if before else ()), f"{record.name} axis {axis}"),
                record.min[axis],
                record.opt[axis],
                record.max[axis],
                record.multiple_of[axis] if record.multiple_of else 1,
                before.reason if before and before.reason else (record.source.dims[axis] if record.source.dims else ""),
                before.sizes if before and before.sizes else {int(size): count for size, count in sizes.items()},
            )
    yield from found.values()


def _program(artifact: Artifact, figures: Iterator[int]) -> Iterator[str]:
    manifest = artifact.manifest
    yield "<h3>Program</h3>"
    if segments := segments_of(artifact):
        yield strip_figure(segments, next(figures))
    if counts := manifest.operators:
        total = counts.tensorrt + counts.pytorch
        parts = [
            (name, float(amount), f"{amount} of {total} ({_percent(amount, total)})")
            for name, amount in (("in TensorRT", counts.tensorrt), ("in PyTorch", counts.pytorch))
        ]
        yield shares("Operators", parts)
    if manifest.fallback_ops:
        names = ", ".join(f"<code>{escape(name)}</code>" for name in manifest.fallback_ops)
        yield f"<p>In PyTorch, between the engines: {names}.</p>"
    else:
        yield "<p>All operators run in TensorRT.</p>"
    yield amounts_figure(
        "<strong>Sizes</strong> engines as they are, and all of the <code>.ep</code>, in which they are base64 text",
        list(_sizes(artifact)),
        next(figures),
    )
    rows = [
        [escape(e.name), readable_size(e.size), escape(", ".join(e.inputs)), escape(", ".join(e.outputs))]
        for e in manifest.engines
    ]
    yield table("Engines", ["Engine", "Size", "Inputs", "Outputs"], rows, numbers=(1,))


_MOST_ENGINES = 8
"""Bars of engines; the smaller ones share one."""


def _sizes(artifact: Artifact) -> Iterator[Amount]:
    """The checkpoint where it is beside the artifact, the ``.ep``, and each engine."""
    manifest = artifact.manifest
    if manifest.checkpoint:
        with contextlib.suppress(OSError):
            size = (artifact.path.parent / manifest.checkpoint.file).stat().st_size
            yield Amount(manifest.checkpoint.file, size, readable_size(size), "seen-key")
    yield Amount(artifact.path.name, manifest.ep.size, readable_size(manifest.ep.size), "grey")
    engines = sorted(manifest.engines, key=lambda engine: -engine.size)
    for engine in engines[:_MOST_ENGINES]:
        yield Amount(engine.name, engine.size, readable_size(engine.size), "one")
    if others := engines[_MOST_ENGINES:]:
        rest = sum(engine.size for engine in others)
        yield Amount(f"{len(others)} smaller engines", rest, readable_size(rest), "one")


def _times(manifest: Manifest) -> Iterator[str]:
    taken = manifest.timings
    parts = [("capture", taken.capture), ("compile", taken.compile), ("write", taken.write)]
    yield "<h3>Time that the export took</h3>"
    timed = [(name, seconds, f"{seconds:.2f} s") for name, seconds in parts]
    yield shares("Time", timed, ("paler", "grey", "palest"))


def _calls(calls: Any) -> Iterator[list[str]]:
    """Rows of a verification as this package writes it; nothing of another tool's."""
    for call in calls if isinstance(calls, list) else ():
        for output in call.get("outputs", ()) if isinstance(call, dict) else ():
            if isinstance(output, dict):
                figures = (output.get(key) for key in ("relative_norm", "allowed", "max_abs"))
                said = "good" if output.get("passed") is True else "bad"
                yield [
                    escape(str(call.get("name", ""))),
                    escape(str(output.get("name", ""))),
                    *(f"{f:.3g}" if isinstance(f, float) else "" for f in figures),
                    f'<span class="{said}">{"passed" if said == "good" else "failed"}</span>',
                ]


def _rest(manifest: Manifest) -> Iterator[str]:
    if manifest.notes:
        yield "<h3>Notes</h3><ul class='plain'>" + "".join(f"<li>{escape(n)}</li>" for n in manifest.notes) + "</ul>"
    if manifest.extra:
        rows = [[escape(key), escape(value)] for key, value in value_texts(manifest.extra)]
        yield "<h3>Extra</h3>" + table("Attached by the user", ["What", "Value"], rows, wide=(1,))


def _about(manifest: Manifest, roles: Sequence[str]) -> Iterator[str]:
    facts = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in _facts(manifest, roles))
    yield f'<details class="about"><summary>Versions and hashes</summary><dl>{facts}</dl></details>'


def _facts(manifest: Manifest, roles: Sequence[str]) -> Iterator[tuple[str, str]]:
    if checkpoint := manifest.checkpoint:
        yield "Checkpoint", checkpoint.file
        yield "SHA-256 of the checkpoint", checkpoint.sha256
    if roles:
        yield "In its folder", ", ".join(roles)
    engines = sum(engine.size for engine in manifest.engines)
    yield "Size", f"{readable_size(manifest.ep.size)}, {readable_size(engines)} of it engines before base64"
    capabilities = ", ".join(manifest.backend.compute_capabilities)
    yield "GPUs", f"{gpus_of(manifest)} (compute capability {capabilities})" if capabilities else "not recorded"
    yield "Made with", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    yield "SHA-256", manifest.ep.sha256


def verdict(manifest: Manifest) -> str:
    """Whether the outcome says that it passed; it is free JSON, so another tool's may not say."""
    found = manifest.verification
    if found is None:
        return "not at the export"
    said = found.get("passed", found.get("verdict"))
    if said is True or said == "passed":
        return '<span class="good">passed</span>'
    return '<span class="bad">failed</span>' if said is False or said == "failed" else "see below"


def in_tensorrt(manifest: Manifest) -> str:
    """Share of the operators that run in engines; empty where nobody counted them."""
    counts = manifest.operators
    if counts is None:
        return "" if manifest.fallback_ops else "100 %"
    return _percent(counts.tensorrt, counts.tensorrt + counts.pytorch)


def _percent(amount: int, total: int) -> str:
    share = 100 * amount / total if total else 100.0
    # 100 % is said of all only
    return f"{min(share, 99.9) if amount < total else share:.3g} %"


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    wide: Sequence[int] = (),
) -> str:
    """A table that scrolls by itself where it is too wide; cells are HTML."""
    kinds = ["number" if i in numbers else "wide" if i in wide else "" for i in range(len(heads))]
    head = "".join(f'<th scope="col" class="{kind}">{text}</th>' for kind, text in zip(kinds, heads))
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, row)) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
