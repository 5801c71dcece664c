"""What a checkpoint carries for its exports: the shapes that its training has seen, and the ranges made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_trt_windows.artifact.shapes import InputSpec
from lightning_trt_windows.discovery.carried import carried, restore
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import LightningTrtError
from lightning_trt_windows.modules.containers import leaves

__all__ = ["checkpoint_state", "go_on"]


def checkpoint_state(observer: Observer, discover: Callable[[], Discovered]) -> dict[str, Any]:
    """Describe what has been seen until now.

    Args:
        observer: What it has seen is what counts.
        discover: Gives the ranges, as far as they are known.

    Returns:
        Plain values, which ``torch.load(weights_only=True)`` reads: what ``discovery.carried`` reads back, and
        ``ranges`` for people, one entry per input with the reason of each dimension.
    """
    state = carried(observer)
    state["ranges"] = []
    if observer.calls():  # without them data would have to be drawn, which is not done while training goes on
        try:
            state["ranges"] = _ranges(discover())
        except LightningTrtError as error:
            state["notes"].append(str(error))
    return state


def _ranges(found: Discovered) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dtype": leaf.dtype,
            "min": list(leaf.at("min")),
            "opt": list(leaf.at("opt")),
            "max": list(leaf.at("max")),
            "source": found.sources[name].kind,
            "reason": found.sources[name].reason,
            "dims": list(found.sources[name].dims),
        }
        for name, leaf in leaves(found.inputs)
        if isinstance(leaf, InputSpec)
    ]


def go_on(observer: Observer, state: Any) -> str:
    """Let ``observer`` of a training that is resumed count on from what its checkpoint carries.

    Args:
        observer: Of a training that begins.
        state: What ``checkpoint_state`` gave.

    Returns:
        Why it begins anew, or nothing.
    """
    try:
        restore(observer, state, home=observer.home)
    except LightningTrtError as error:
        return f"the shapes in the checkpoint do not count: {error}"
    return ""
