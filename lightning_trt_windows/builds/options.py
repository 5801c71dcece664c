"""Where and how engines are built, with what each export is asked for: one value that is handed through whole."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

from lightning_trt_windows.builds.executors.names import check_executor
from lightning_trt_windows.builds.executors.registry import named_executor
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.export.options import ExportOptions

__all__ = ["BuildOptions"]


@dataclass(frozen=True, kw_only=True)
class BuildOptions(ExportOptions):
    """What ``export_checkpoints`` and the callback take for builds, checked.

    Raises:
        ConfigurationError: A value outside its choices or its range.
    """

    executor: str | Executor = "process"
    """Where engines are built: a name, see ``builds.executors.names``, or an executor of the user's."""
    max_pending: int = 16
    """Builds that the executor is given at a time; further ones wait."""
    build_deadline: float | None = None
    """Seconds that one build may take, with ``"process"``."""
    build_memory: float | None = None
    """Gigabytes (10^9 bytes) that one build may take, with ``"process"``."""
    workers: int | None = None
    """Builds at a time, with ``"process"``; by default as many as cores and memory allow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.executor, Executor):
            check_executor(self.executor)
        if self.max_pending < 1:
            raise ConfigurationError(f"max_pending must be 1 or more, got {self.max_pending!r}")
        if self.workers is not None and self.workers < 1:
            raise ConfigurationError(f"workers must be 1 or more, got {self.workers!r}")
        for name in ("build_deadline", "build_memory"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} must be more than 0, got {value!r}")

    def make_executor(self) -> tuple[Executor, bool]:
        """Make or take the executor.

        Returns:
            The executor, and whether it is ours to shut down.

        Raises:
            EnvironmentMismatchError: What a named executor needs is not installed, or does not answer.
        """
        if isinstance(self.executor, Executor):
            return self.executor, False
        return named_executor(self.executor, self.build_deadline, self.build_memory, self.workers), True
