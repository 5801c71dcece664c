"""``report``: a page about artifacts that needs nothing but a browser. Standard library only.

It loads nothing from elsewhere and runs no script, and says so to the browser. Every text in it that comes from a
manifest is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path, PurePosixPath
from string import Template

from lightning_trt_windows.artifact.artifact import check_artifact
from lightning_trt_windows.artifact.files import atomic_file, readable_size
from lightning_trt_windows.bundle.article import article, in_tensorrt, table, verdict
from lightning_trt_windows.bundle.charts import Line, line_figure
from lightning_trt_windows.bundle.comparison import side_by_side, worst_error
from lightning_trt_windows.bundle.gathering import Gathered, Gathering, Which, chosen, gather
from lightning_trt_windows.bundle.texts import template
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.storage.remote_artifact import local_copy

__all__ = ["report", "report_page"]

_Path = str | os.PathLike[str]


def report(
    run_dir: _Path | Sequence[_Path],
    out: _Path = "report.html",
    *,
    which: Which = "all",
    skip_damaged: bool = False,
) -> Path:
    """Write a page about artifacts, in the order given.

    Args:
        run_dir: A directory with artifacts in or below it; or a file, the ``.ep`` or the ``.json`` of an artifact; or
            several of them. Paths or URLs.
        out: The page.
        which: As for ``lightning_trt_windows.collect``; of directories.
        skip_damaged: Leave damaged artifacts out, rather than refuse. Content is not compared with the hashes here.

    Returns:
        Path of the page.

    Raises:
        ConfigurationError: There is no artifact in ``run_dir``, or ``run_dir`` is empty.
        ArtifactError: Artifacts are damaged; the error lists all that is wrong with them.
        OutputError: The page cannot be written.
    """
    given = [run_dir] if isinstance(run_dir, (str, os.PathLike)) else list(run_dir)
    if not given:
        raise ConfigurationError("report needs the directory of a run, or the file of an artifact; none was given")
    items: list[Gathered] = []
    names: list[str] = []
    for number, place in enumerate(given):
        path = local_copy(place)
        if path.is_file():
            found = [Gathered(check_artifact(path), PurePosixPath(), number)]
        else:
            gathering: Gathering = gather([path], content=False, skip_damaged=skip_damaged)
            found = list(chosen(gathering, which))
        items += found
        several = f"{path.name}/" if len(given) > 1 and path.is_dir() else ""
        names += [several + str(item.folder / item.artifact.path.name) for item in found]
    page = report_page(items, names=names)
    with atomic_file(out) as file:
        file.write(page.encode())
    return Path(out)


def report_page(items: Sequence[Gathered], *, names: Sequence[str]) -> str:
    """Write the page as text; the same for the same artifacts.

    Args:
        items: At least one.
        names: What each is called on the page.

    Returns:
        The page, as HTML.
    """
    count = f"{len(items)} artifact{'' if len(items) == 1 else 's'}"
    total = readable_size(sum(item.artifact.size for item in items))
    figures = iter(range(1, 1 << 30))
    beside = "".join(side_by_side(items, names, figures))
    scores = "".join(_scores(items, figures))
    named = enumerate(zip(items, names))
    articles = [article(item.artifact, name, item.roles, i, figures) for i, (item, name) in named]
    return Template(template("report.html.txt")).substitute(
        title="TensorRT artifacts for Windows",
        lead=escape(f"{count}, {total}"),
        style=template("report.css"),
        main=_overview(items, names) + beside + scores + "\n".join(articles),
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
                in_tensorrt(made),
                _checked(item),
            ]
        )
    heads = ["Artifact", "Kept as", "Epoch", "Step", "Score", "Size", "Engines", "In TensorRT", "Numbers"]
    return table("All artifacts", heads, rows, numbers=(2, 3, 5, 6, 7), wide=(0,))


def _checked(item: Gathered) -> str:
    """What is known of an artifact's numbers, in a few words."""
    made = item.manifest
    said = f"on a GPU: {verdict(made)}" if made.verification is not None else ""
    if (worst := worst_error(made)) is not None:
        said = f"checked, error {worst:.1e}" + (f"; {said}" if said else "")
    return said or "not compared"


def _scores(items: Sequence[Gathered], figures: Iterator[int]) -> Iterator[str]:
    """A chart of each score that two artifacts or more have, over the step of their checkpoints."""
    found: dict[str, dict[float, float]] = {}
    for item in items:
        checkpoint = item.manifest.checkpoint
        if checkpoint and checkpoint.global_step is not None:
            for score in checkpoint.scores:
                found.setdefault(score.monitor, {})[float(checkpoint.global_step)] = score.value
    for monitor, points in found.items():
        if len(points) > 1:
            caption = f"<strong>{escape(monitor)}</strong> over the step of the checkpoint"
            lines = [Line(monitor, points, "data")]
            yield line_figure(caption, lines, next(figures), across="step", unit="", logarithmic=False)
