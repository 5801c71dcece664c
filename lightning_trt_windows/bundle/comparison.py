"""Artifacts side by side: one drawing for each quantity, a row for each artifact. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.bundle.bench_file import read_bench
from lightning_trt_windows.bundle.charts import Error, error_figure
from lightning_trt_windows.bundle.figures import Amount, amounts_figure
from lightning_trt_windows.bundle.gathering import Gathered

__all__ = ["side_by_side"]


def side_by_side(items: Sequence[Gathered], names: Sequence[str], figures: Iterator[int]) -> Iterator[str]:
    """Draw what can be compared of two artifacts or more: sizes, errors, latencies.

    Args:
        items: The artifacts.
        names: What each is called on the page.
        figures: Gives each figure its number.

    Yields:
        HTML; nothing of a single artifact, and no quantity that fewer than two have.
    """
    if len(items) < 2:
        return
    named = list(zip(items, _without_common_folders(names), strict=True))
    sizes = [Amount(name, i.manifest.ep.size, readable_size(i.manifest.ep.size), "grey") for i, name in named]
    errors = [Error(name, worst) for i, name in named if (worst := worst_error(i.manifest)) is not None]
    yield '<section aria-label="Side by side"><h2>Side by side</h2><div class="side">'
    yield amounts_figure("<strong>Size</strong> of the <code>.ep</code>", sizes, next(figures))
    if len(errors) > 1:
        caption = "<strong>Largest error</strong> when the export was checked, without a GPU"
        yield error_figure(caption, errors, next(figures))
    if len(latencies := list(_latencies(named))) > 1:
        caption = "<strong>Latency</strong> median of <code>load</code> at the smallest batch that was measured"
        yield amounts_figure(caption, latencies, next(figures))
    yield "</div></section>"


def _without_common_folders(names: Sequence[str]) -> list[str]:
    """Leave out the folders that all names begin with."""
    folders = [name.split("/")[:-1] for name in names]
    common = next((i for i, parts in enumerate(zip(*folders)) if len(set(parts)) > 1), min(map(len, folders)))
    return ["/".join(name.split("/")[common:]) for name in names]


def worst_error(manifest: Manifest) -> float | None:
    """The largest error that was found at the export; ``None`` where nothing was compared."""
    if manifest.check is None or not manifest.check.compared:
        return None
    return max(max(sizes.lowered, sizes.engines) for sizes in manifest.check.compared)


def _latencies(named: Sequence[tuple[Gathered, str]]) -> Iterator[Amount]:
    for item, name in named:
        found = read_bench(item.artifact)
        if found and (points := found.latency.get("load")):
            batch = min(points)
            yield Amount(f"{name} ({found.device}, batch {batch:g})", points[batch], f"{points[batch]:.3g} ms")
