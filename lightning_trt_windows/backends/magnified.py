"""How much a graph makes of a difference in the last bit of its inputs.

Engines round in another order than PyTorch. Where the module makes a large difference of a small one (a recurrence that
is chaotic, a difference of nearly equal numbers), no engine gives the module's numbers, and none of them is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["magnified"]


def magnified(
    run: Callable[[Sequence[Any]], Sequence[Any]],
    inputs: Sequence[Any],
    difference: Callable[[Any, Any], float],
) -> float:
    """Change floating-point inputs in their last bit, up or down by chance, and see what becomes of the results.

    Args:
        run: Gives the results for inputs.
        inputs: Tensors, and what is none.
        difference: Of a result from what it was.

    Returns:
        The largest difference of a result; 0 where it does not run.
    """
    random = torch.Generator().manual_seed(0)

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        # zero stays zero, and no sign changes
        step = torch.finfo(value.dtype).eps * (torch.rand(value.shape, generator=random) - 0.5).sign()
        return value * (1 + step.to(value.dtype)).to(value.device)

    try:
        with torch.no_grad():
            before, after = run(inputs), run([moved(value) for value in inputs])
    # operators that CPUs lack; of interest are numbers
    except Exception:
        return 0.0
    found = (difference(a, b) for a, b in zip(after, before, strict=True))
    return max(filter(math.isfinite, found), default=0.0)
