"""Programs in words that TensorRT's converters take, and take right.

``with_resizes_as_views`` changes the captured program, ``OWN_DECOMPOSITIONS`` go beside upstream's when it is
decomposed, ``rewrite`` changes the lowered graph before it is split, and ``own_converters`` stand in for upstream's.
``_compat/converters.py`` has the fault that each is for.
"""

from __future__ import annotations

from torch import Tensor
from torch.fx import GraphModule

from lightning_trt_windows.backends.rewrites.assignment import ASSIGNMENT
from lightning_trt_windows.backends.rewrites.attention import with_attention_as_captured
from lightning_trt_windows.backends.rewrites.converters import own_converters
from lightning_trt_windows.backends.rewrites.factories import FACTORIES
from lightning_trt_windows.backends.rewrites.in_torch import of_types_without_engines
from lightning_trt_windows.backends.rewrites.indices import with_indices_from_the_start
from lightning_trt_windows.backends.rewrites.insertion import set_value
from lightning_trt_windows.backends.rewrites.normalization import NORMALIZATION
from lightning_trt_windows.backends.rewrites.pointwise import POINTWISE
from lightning_trt_windows.backends.rewrites.reductions import REDUCTIONS
from lightning_trt_windows.backends.rewrites.resizing import with_resizes_as_views
from lightning_trt_windows.backends.rewrites.sequences import SEQUENCE_DECOMPOSITIONS
from lightning_trt_windows.backends.rewrites.sizes import with_sizes_as_tensors
from lightning_trt_windows.backends.rewrites.statistics import with_statistics
from lightning_trt_windows.backends.rewrites.types import with_promoted_types
from lightning_trt_windows.backends.rewrites.windows import WINDOWS

__all__ = ["OWN_DECOMPOSITIONS", "of_types_without_engines", "own_converters", "rewrite", "with_resizes_as_views"]

OWN_DECOMPOSITIONS = {
    **ASSIGNMENT,
    **FACTORIES,
    **NORMALIZATION,
    **POINTWISE,
    **REDUCTIONS,
    **SEQUENCE_DECOMPOSITIONS,
    **WINDOWS,
}
"""Operator to its decomposition, for ``run_decompositions``; ``NotImplemented`` leaves a case as it is."""


def rewrite(lowered: GraphModule) -> None:
    """Change ``lowered`` in place, so that its converters compute what PyTorch does."""
    with_sizes_as_tensors(lowered)
    with_indices_from_the_start(lowered)
    with_attention_as_captured(lowered)
    with_statistics(lowered)
    with_promoted_types(lowered)
    for node in lowered.graph.nodes:
        # upstream's converters ask it for the type of a tensor, and lowering leaves it out here and there
        if isinstance(node.meta.get("val"), Tensor) and node.meta.get("tensor_meta") is None:
            set_value(node, node.meta["val"])
