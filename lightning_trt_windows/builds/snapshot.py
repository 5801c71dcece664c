"""What a module and its data were like when a checkpoint was saved: taken at that moment, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_trt_windows.builds.trace import Trace
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.errors import LightningTrtError

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """The moment of a checkpoint; ``Tracer.snapshot`` takes it."""

    step: int
    """Number of optimizer steps that had been taken, -1 where that is not known."""
    inputs: Discovered | LightningTrtError
    """Ranges as far as they were seen, or why there are none."""
    key: str | None = None
    """Key of what the module computed, see ``Execution``; ``None`` where it could not be run on small inputs."""
    is_whole: bool = False
    """Whether ``key`` says all."""
    trace: Trace | None = None
    """An earlier trace that gave what the module gave at that moment."""
    is_past: bool = False
    """Whether the module may have changed since then: the file was written later, by another thread."""

    def discovered(self) -> Discovered:
        """Give the ranges.

        Returns:
            The ranges as they were known at the moment of the snapshot.

        Raises:
            LightningTrtError: There were none.
        """
        if isinstance(self.inputs, LightningTrtError):
            raise self.inputs
        return self.inputs

    def past(self) -> Snapshot:
        """The same, of a module that may have changed since then."""
        return replace(self, is_past=True)
