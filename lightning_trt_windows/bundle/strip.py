"""The program as a strip: its engines and what PyTorch runs between them, in order. Standard library only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.manifest import Manifest
from lightning_trt_windows.artifact.outline import read_outline
from lightning_trt_windows.errors import ArtifactError

__all__ = ["Segment", "segments_in", "segments_of", "strip_figure"]

_MOST = 60
"""Segments that are drawn; of longer programs the middle is left out, and said to be."""
_NOTE = re.compile(r"One use of (\S+) falls back to PyTorch: (.*)", re.DOTALL)
"""What the compiler notes of an operator that it keeps out of engines."""
_UNKNOWN = "TensorRT has no form of it, or what was left of the graph there was smaller than min_block_size"
_ON_SIZES = ("_operator.", "torch.sym_", "torch.ops.aten.sym_", "math.")
"""Beginnings of operators that compute sizes, and take no time."""


@dataclass(frozen=True)
class Segment:
    """An engine, or operators that run in PyTorch one after the other."""

    engine: str
    """Name of the engine; empty for operators."""
    text: str
    """What a pointer shows."""
    weight: float
    """Share of the strip's width, in relation to the others."""


def segments_of(artifact: Artifact) -> list[Segment]:
    """The program of ``artifact`` in its order; empty where the ``.ep`` cannot be read or is none that is known.

    Returns:
        One for each engine call, and one for each run of operators between them.
    """
    try:
        steps = read_outline(artifact).steps
    except (ArtifactError, OSError):
        return []
    return segments_in(steps, artifact.manifest)


def segments_in(steps: Sequence[int | str], manifest: Manifest) -> list[Segment]:
    """Group ``steps``, numbers of engines and names of operators, into what is drawn.

    Returns:
        One for each engine call, and one for each run of operators between them.
    """
    left = manifest.check.left_to_pytorch if manifest.check else ()
    noted = (found for note in manifest.notes if (found := _NOTE.match(note)))
    reasons = {**{found[1]: found[2] for found in noted}, **{item.operator: item.reason for item in left}}
    segments: list[Segment] = []
    # each engine for itself; getitem and arithmetic on sizes are neither here nor there
    total = sum(engine.size for engine in manifest.engines) or 1
    kept = [step for step in steps if isinstance(step, int) or not step.startswith(_ON_SIZES)]
    for _, group in groupby(enumerate(kept), key=lambda item: item[0] if isinstance(item[1], int) else -1):
        run = [step for _, step in group]
        if isinstance(run[0], int):
            engine = manifest.engines[run[0]]
            segments.append(
                Segment(engine.name, f"{engine.name}: {readable_size(engine.size)}", 2 + 4 * engine.size / total)
            )
        else:
            segments.append(Segment("", "\n".join(_lines(run, reasons)), 1.0 + min(len(run), 12) / 4))
    return segments


def _lines(run: Sequence[int | str], reasons: Mapping[str, str]) -> Iterator[str]:
    """Operators of a run, with the reason why each is not in an engine."""
    for name, count in Counter(str(step).removeprefix("torch.ops.") for step in run).items():
        times = f" ({count} times)" if count > 1 else ""
        yield f"{name}{times}: {reasons.get(name, _UNKNOWN)}"


def strip_figure(segments: Sequence[Segment], number: int) -> str:
    """Blocks from left to right, in the order in which they run.

    Args:
        segments: At least one.
        number: Of the figure.

    Returns:
        The HTML.
    """
    engines = sum(1 for segment in segments if segment.engine)
    shown, gap = list(segments), 0
    if len(shown) > _MOST:
        gap = len(shown) - _MOST
        shown = [*shown[: _MOST // 2], Segment("", f"{gap} more parts", 2.0), *shown[-_MOST // 2 :]]
    blocks = "".join(
        f'<span class="{"one" if s.engine else "two"}" style="flex:{s.weight:g}" title="{escape(s.text)}"></span>'
        for s in shown
    )
    said = f"{engines} engine{'' if engines == 1 else 's'}"
    between = len(segments) - engines
    said += f", and {between} time{'' if between == 1 else 's'} PyTorch" if between else ", and nothing in PyTorch"
    left_out = f"; {gap} parts in the middle are not drawn" if gap else ""
    listed = "".join(
        f"<li>{escape(s.engine) or '<strong>PyTorch</strong> ' + '<br>'.join(map(escape, s.text.splitlines()))}</li>"
        for s in shown
    )
    return (
        f'<figure><figcaption id="figure-{number}"><strong>The program in its order</strong> {said}{left_out}. '
        "A pointer on a part shows what it is, and why it is in PyTorch.</figcaption>"
        f'<div class="strip" role="img" aria-labelledby="figure-{number}">{blocks}</div>'
        '<ul class="legend"><li><span class="key one"></span>engine</li>'
        '<li><span class="key two"></span>operators in PyTorch</li></ul>'
        f"<details><summary>The same as a list</summary><ol>{listed}</ol></details></figure>"
    )
