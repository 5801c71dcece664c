"""Inputs at which an export checks its numbers: the smallest, usual and largest sizes and one between."""

from __future__ import annotations

import functools

from lightning_trt_windows.backends.samples import Sample, Samples, elements_of
from lightning_trt_windows.export.job import Job
from lightning_trt_windows.verification.golden_file import call_sizes, filled, golden_shapes, ways_to_fill

__all__ = ["samples_of"]

_SEED = 1
"""Another than that of goldens: two sets of inputs see more than one."""
_AUTO_SECONDS = 1.5
"""What ``check="auto"`` may cost. The smallest size is compared even where it takes longer."""
_MEMORY = 1 << 30
"""Bytes that may be kept of what passes between engines."""


def samples_of(job: Job) -> Samples | None:
    """The inputs to check ``job`` at; ``None`` where its settings do not ask for a check."""
    mode = job.settings.check
    if mode is False:
        return None
    candidates = []
    for name, shapes in golden_shapes(job.inputs).items():
        fills = ways_to_fill(job.inputs, job.values)
        variants = [functools.partial(filled, job.inputs, shapes, fill, _SEED) for fill in fills]
        candidates.append(Sample(name, call_sizes(job.inputs, shapes), variants, elements_of(shapes)))
    return Samples(mode, candidates, None if mode == "full" else _AUTO_SECONDS, _MEMORY)
