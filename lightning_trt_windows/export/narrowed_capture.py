"""Capture a module; where it requires less than was inferred of its inputs, narrow them and capture again."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from lightning_trt_windows.artifact.shapes import InputSpec
from lightning_trt_windows.capture.constraint_fixes import Suggestion
from lightning_trt_windows.capture.program import Captured, DimensionError, capture
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import CaptureError
from lightning_trt_windows.modules.containers import leaves

__all__ = ["capture_narrowed"]


def capture_narrowed(module: nn.Module, discovered: Discovered, method: str) -> tuple[Captured, Discovered]:
    """Capture with what was discovered, or, where that cannot be, with what the inputs may be otherwise.

    What only a loss needs is left out if it can be, and stays where ``forward`` reads the labels.

    Args:
        module: The module.
        discovered: Its inputs.
        method: What to capture instead of ``forward``.

    Returns:
        The program, and the inputs as they were narrowed, with a note of each change.

    Raises:
        CaptureError: The module cannot be captured, or requires less than an ``InputSpec`` or an option asked for.
    """
    try:
        return _narrowed(module, discovered, method)
    except CaptureError as error:
        for other in discovered.otherwise:
            # where the inputs are not to blame, what is said of the first of them is said
            try:
                return _narrowed(module, other, method)
            except CaptureError as second:
                if more := sorted(other.inputs.keys() - discovered.inputs.keys()):
                    error.args = (f"{error}\nWith {', '.join(more)} among the inputs: {second}", *error.args[1:])
        if discovered.otherwise and discovered.is_guessed:
            error.args = (f"{error}\n{_NEVER_CALLED}", *error.args[1:])
        raise


_NEVER_CALLED = (
    "No step calls forward, so its inputs were taken from the batches. If it takes something else, say it with "
    "inputs={...}, or name what is to be exported with method=..., a method or a submodule"
)


def _narrowed(module: nn.Module, discovered: Discovered, method: str) -> tuple[Captured, Discovered]:
    """Capture; where the module requires less than was inferred, narrow it and note it. What was asked for stands."""
    attempts = 1 + 2 * sum(len(spec.shape) for _, spec in leaves(discovered.inputs) if isinstance(spec, InputSpec))
    for _ in range(attempts):
        try:
            captured = capture(module, discovered.inputs, method=method)
            return captured, replace(discovered, notes=(*discovered.notes, *captured.notes))
        except DimensionError as error:
            before = discovered
            for suggestion in error.suggestions:
                if asked := discovered.asked_for(suggestion.symbol):
                    raise CaptureError(
                        f"{', '.join(asked)} ({suggestion.symbol}, {discovered.range_of(suggestion.symbol)}) cannot be "
                        f"as dynamic as you asked for: {suggestion}. Change its InputSpec, or the module.\n{error}"
                    ) from error
                discovered = _followed(discovered, suggestion)
            if discovered == before:
                raise
    raise CaptureError(f"{type(module).__name__} cannot be traced with any of the shapes that were seen")


def _followed(discovered: Discovered, suggestion: Suggestion) -> Discovered:
    other = discovered.range_of(suggestion.same_as) if suggestion.same_as else None
    if other is not None:
        return discovered.resized(suggestion.symbol, lambda _: other, str(suggestion))
    if suggestion.same_as is not None:
        return discovered
    return discovered.resized(suggestion.symbol, suggestion.applied_to, str(suggestion))
