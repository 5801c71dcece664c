"""What a module and its data were like when a checkpoint was saved: taken at that moment, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lightning_trt_windows.builds.trace_key import description
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import LightningTrtError

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """The moment of a checkpoint."""

    step: int
    """Number of optimizer steps that had been taken, -1 where that is not known."""
    inputs: Discovered | LightningTrtError
    """Ranges as far as they were seen, or why there are none."""
    likeness: Any
    """Description of the module, see ``trace_key``: what decides whether an earlier trace is one of this moment too."""
    is_past: bool = False
    """Whether the module may have changed since then: the file was written later, by another thread."""

    @classmethod
    def take(cls, module: nn.Module, discover: Callable[[], Discovered], *, step: int) -> Snapshot:
        """Describe ``module`` as it is now.

        Args:
            module: The module.
            discover: Gives the ranges, as far as they are known.
            step: Number of optimizer steps that have been taken.
        """
        inputs: Discovered | LightningTrtError
        try:
            inputs = discover()
        except LightningTrtError as error:
            inputs = error
        return cls(step, inputs, description(module))

    def discovered(self) -> Discovered:
        """Give the ranges.

        Raises:
            LightningTrtError: There were none.
        """
        if isinstance(self.inputs, LightningTrtError):
            raise self.inputs
        return self.inputs

    def past(self) -> Snapshot:
        """The same, of a module that may have changed since then."""
        return replace(self, is_past=True)
