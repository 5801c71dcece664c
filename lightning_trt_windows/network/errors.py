"""Why a network could not be evaluated. None of these says that it is wrong."""

from __future__ import annotations

__all__ = ["BudgetExceededError", "NetworkError", "UnknownLayerError"]


class NetworkError(Exception):
    """The network does what its layers do not allow, such as a slice beyond its bounds: its engine could not run."""


class UnknownLayerError(Exception):
    """A layer, or a mode of one, that has no meaning here.

    Args:
        kind: Kind of the layer, as ``"NMS"``.
        name: Name of the layer.
        what: The mode that is unknown; empty where it is the layer itself.
    """

    def __init__(self, kind: str, name: str, what: str = "") -> None:
        self.kind = kind
        self.name = name
        super().__init__(f"the layer {name!r} ({kind}{f', {what}' if what else ''}) cannot be evaluated")


class BudgetExceededError(Exception):
    """Evaluating took longer, or more memory, than it may."""
