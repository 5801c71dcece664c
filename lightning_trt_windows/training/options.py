"""How the builds of a run are made: where, how many at a time, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from lightning_trt_windows.builds.executors.names import check_executor
from lightning_trt_windows.builds.executors.registry import named_executor
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["RunOptions", "one_of"]


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse a value outside its choices.

    Raises:
        ConfigurationError: It is.
    """
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


class RunOptions:
    """How the builds of a run are made; see ``lightning_trt_windows.WindowsExport``.

    Raises:
        ConfigurationError: An executor that will not do, or a number out of its range.
    """

    def __init__(
        self,
        executor: str | Executor,
        *,
        build_deadline: float | None = None,
        build_memory: float | None = None,
        max_pending: int = 16,
        replace_queued: bool = False,
        keep_dropped: bool = False,
        retrace: bool = False,
    ) -> None:
        if not isinstance(executor, Executor):
            check_executor(executor)
        if isinstance(executor, ThreadPoolExecutor):
            raise ConfigurationError(
                "executor: builds in threads of the training process would change its random numbers; use "
                "executor='process', or an executor with processes of its own"
            )
        if max_pending < 1:
            raise ConfigurationError(f"max_pending must be 1 or more, got {max_pending!r}")
        for name, value in (("build_deadline", build_deadline), ("build_memory", build_memory)):
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} must be more than 0, got {value!r}")
        self.executor = executor
        self.build_deadline = build_deadline
        self.build_memory = build_memory
        self.max_pending = max_pending
        self.replace_queued = replace_queued
        self.keep_dropped = keep_dropped
        self.retrace = retrace

    def make_executor(self) -> tuple[Executor, bool]:
        """The executor, and whether it is ours to shut down."""
        if isinstance(self.executor, Executor):
            return self.executor, False
        return named_executor(self.executor, self.build_deadline, self.build_memory), True
