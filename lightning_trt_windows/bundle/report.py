"""``report``: a page about the artifacts of a run that needs nothing but a browser. Standard library only.

It loads nothing from elsewhere and runs no script, and says so to the browser. Every text in it that comes from a
manifest is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from lightning_trt_windows.artifact.description import source_text, value_texts
from lightning_trt_windows.artifact.files import atomic_file, readable_size
from lightning_trt_windows.artifact.manifest import InputRecord, Manifest
from lightning_trt_windows.artifact.shapes import shape_text
from lightning_trt_windows.bundle.figures import Range, range_figure, shares
from lightning_trt_windows.bundle.gathering import Gathered, Which, chosen, gather
from lightning_trt_windows.bundle.texts import gpus_of, range_of, template
from lightning_trt_windows.storage.remote_artifact import fetch_run

__all__ = ["ranges_of", "report", "report_page"]


_RANGE_KEY = (
    '<ul class="legend"><li><span class="key band-key"></span>the range</li>'
    '<li><span class="key two"></span>the size it is tuned for</li>'
    '<li><span class="key one"></span>a size that was seen; the higher the more often</li></ul>'
)


def report(
    run_dir: str | os.PathLike[str],
    out: str | os.PathLike[str] = "report.html",
    *,
    which: Which = "all",
    skip_damaged: bool = False,
) -> Path:
    """Write a page about the artifacts in and below ``run_dir``.

    Args:
        run_dir: A directory with artifacts in or below it, or its URL.
        out: The page.
        which: As for ``lightning_trt_windows.collect``.
        skip_damaged: Leave damaged artifacts out, rather than refuse. Content is not compared with the hashes here.

    Raises:
        ConfigurationError: There is no artifact.
        ArtifactError: All that is wrong with those that are damaged.
        OutputError: The page cannot be written.
    """
    gathering = gather([fetch_run(run_dir)], content=False, skip_damaged=skip_damaged)
    items = chosen(gathering, which)
    page = report_page(items, names=[str(item.folder / item.artifact.path.name) for item in items])
    with atomic_file(out) as file:
        file.write(page.encode())
    return Path(out)


def report_page(items: Sequence[Gathered], *, names: Sequence[str]) -> str:
    """The page as text; the same for the same artifacts.

    Args:
        items: At least one.
        names: What each is called on the page.
    """
    count = f"{len(items)} artifact{'' if len(items) == 1 else 's'}"
    total = readable_size(sum(item.artifact.size for item in items))
    figures = iter(range(1, 1 << 30))
    named = enumerate(zip(items, names))
    articles = [_article(item.manifest, name, item.roles, i, figures) for i, (item, name) in named]
    return Template(template("report.html.txt")).substitute(
        title="TensorRT artifacts for Windows",
        lead=escape(f"{count}, {total}"),
        style=template("report.css"),
        main=_overview(items, names) + "\n".join(articles),
    )


def _overview(items: Sequence[Gathered], names: Sequence[str]) -> str:
    rows = []
    for number, (item, name) in enumerate(zip(items, names)):
        made = item.manifest
        checkpoint = made.checkpoint
        scores = [f"{s.monitor} {s.value:.6g}" for s in checkpoint.scores] if checkpoint else []
        progress = (checkpoint.epoch, checkpoint.global_step) if checkpoint else (None, None)
        rows.append(
            [
                f'<a href="#artifact-{number}">{escape(name)}</a>',
                escape(", ".join(item.roles)),
                *("" if n is None else str(n) for n in progress),
                escape(", ".join(scores)),
                readable_size(made.ep.size),
                str(len(made.engines)),
                _in_tensorrt(made),
                _verdict(made),
            ]
        )
    heads = ["Artifact", "Kept as", "Epoch", "Step", "Score", "Size", "Engines", "In TensorRT", "Verified"]
    return _table("All artifacts", heads, rows, numbers=(2, 3, 5, 6, 7), wide=(0,))


def _article(manifest: Manifest, name: str, roles: Sequence[str], number: int, figures: Iterator[int]) -> str:
    facts = [(key, escape(value)) for key, value in _facts(manifest, roles)]
    listed = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in facts)
    parts = [
        f'<h2 id="heading-{number}">{escape(name)}</h2>',
        f"<dl>{listed}</dl>",
        "<h3>Inputs</h3>",
        _table(
            "What the program takes",
            ["Name", "dtype", "Shape", "Where the shape is from"],
            [[*map(escape, (i.name, i.dtype, range_of(i), source_text(i)))] for i in manifest.inputs],
            wide=(2, 3),
        ),
    ]
    if ranges := list(ranges_of(manifest.inputs)):
        parts.append("<h3>Ranges over the sizes that were seen</h3>" + _RANGE_KEY)
        parts += [range_figure(dimension, next(figures)) for dimension in ranges]
    parts += [
        "<h3>Outputs</h3>",
        _table(
            "What the program returns",
            ["Name", "dtype", "Shape"],
            [[*map(escape, (o.name, o.dtype, shape_text(o.shape)))] for o in manifest.outputs],
        ),
        *_operators(manifest),
        *_times(manifest),
        *_verification(manifest),
        *_rest(manifest),
    ]
    return f'<article id="artifact-{number}" aria-labelledby="heading-{number}">{"".join(parts)}</article>'


def _facts(manifest: Manifest, roles: Sequence[str]) -> Iterator[tuple[str, str]]:
    if checkpoint := manifest.checkpoint:
        yield "Checkpoint", checkpoint.file
    if roles:
        yield "In its folder", ", ".join(roles)
    engines = sum(engine.size for engine in manifest.engines)
    yield "Size", f"{readable_size(manifest.ep.size)}, {readable_size(engines)} of it engines before base64"
    capabilities = ", ".join(manifest.backend.compute_capabilities)
    yield "GPUs", f"{gpus_of(manifest)} (compute capability {capabilities})" if capabilities else "not recorded"
    yield "Made with", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    yield "SHA-256", manifest.ep.sha256


def ranges_of(inputs: Iterable[InputRecord]) -> Iterator[Range]:
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


def _operators(manifest: Manifest) -> Iterator[str]:
    yield "<h3>Operators</h3>"
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
        yield "<p>All of them run in TensorRT.</p>"
    rows = [
        [escape(e.name), readable_size(e.size), escape(", ".join(e.inputs)), escape(", ".join(e.outputs))]
        for e in manifest.engines
    ]
    yield _table("Engines", ["Engine", "Size", "Inputs", "Outputs"], rows, numbers=(1,))


def _times(manifest: Manifest) -> Iterator[str]:
    taken = manifest.timings
    parts = [("capture", taken.capture), ("compile", taken.compile), ("write", taken.write)]
    yield "<h3>Time that the export took</h3>"
    yield shares("Time", [(name, seconds, f"{seconds:.2f} s") for name, seconds in parts])


def _verification(manifest: Manifest) -> Iterator[str]:
    yield "<h3>Verification</h3>"
    if manifest.verification is None:
        recorded = "Goldens were recorded: <code>lightning-trt-windows verify</code> compares with them on a GPU."
        yield f"<p>Not verified at the export. {recorded if manifest.golden else ''}</p>"
        return
    yield f"<p>{_verdict(manifest)}</p>"
    rows = [[escape(key), escape(value)] for key, value in value_texts(manifest.verification) if key != "calls"]
    yield _table("What was found", ["What", "Value"], rows, wide=(1,))
    if calls := list(_calls(manifest.verification.get("calls"))):
        heads = ["Call", "Output", "Relative norm", "Allowed", "Largest difference", ""]
        yield _table("Calls that were compared", heads, calls, numbers=(2, 3, 4))


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
        yield "<h3>Extra</h3>" + _table("Attached by the user", ["What", "Value"], rows, wide=(1,))


def _verdict(manifest: Manifest) -> str:
    """Whether the outcome says that it passed; it is free JSON, so another tool's may not say."""
    found = manifest.verification
    if found is None:
        return "not at the export"
    said = found.get("passed", found.get("verdict"))
    if said is True or said == "passed":
        return '<span class="good">passed</span>'
    return '<span class="bad">failed</span>' if said is False or said == "failed" else "see below"


def _in_tensorrt(manifest: Manifest) -> str:
    counts = manifest.operators
    if counts is None:
        return "" if manifest.fallback_ops else "100 %"
    return _percent(counts.tensorrt, counts.tensorrt + counts.pytorch)


def _percent(amount: int, total: int) -> str:
    share = 100 * amount / total if total else 100.0
    # 100 % is said of all only
    return f"{min(share, 99.9) if amount < total else share:.3g} %"


def _table(
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
