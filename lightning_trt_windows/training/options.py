"""What a user may choose about the exports of a training: one value, from the callback, a command line, YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from lightning_trt_windows.artifact.shapes import InputTree
from lightning_trt_windows.builds.executors.names import check_executor
from lightning_trt_windows.builds.executors.registry import named_executor
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.loggers import LogArtifacts
from lightning_trt_windows.settings import ExportSettings

__all__ = ["Options", "one_of"]


def one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse a value outside its choices.

    Raises:
        ConfigurationError: ``value`` is none of ``choices``.
    """
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of ``lightning_trt_windows.WindowsExport``, which documents them, checked.

    Raises:
        ConfigurationError: A value outside its choices or its range, or an executor of threads.
    """

    settings: ExportSettings
    """What artifacts are like: backend, precision, goldens, verification and options of upstream."""
    when: Literal["train_end", "checkpoint"] = "train_end"
    inputs: Mapping[str, InputTree] | None = None
    executor: str | Executor = "inline"
    on_error: Literal["warn", "raise"] = "warn"
    ranges: RangeOptions = field(default_factory=RangeOptions)
    method: str = "forward"
    extra: Mapping[str, Any] = field(default_factory=dict)
    keep_dropped: bool = False
    max_pending: int = 16
    replace_queued: bool = False
    build_deadline: float | None = None
    """Seconds."""
    build_memory: float | None = None
    """Gigabytes (10^9 bytes)."""
    workers: int | None = None
    """Builds at a time."""
    retrace: bool = False
    log_artifacts: LogArtifacts = None
    preflight: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        one_of("when", self.when, ("train_end", "checkpoint"))
        one_of("on_error", self.on_error, ("warn", "raise"))
        one_of("log_artifacts", self.log_artifacts, (None, True, False, "all"))
        if not isinstance(self.executor, Executor):
            check_executor(self.executor)
        if isinstance(self.executor, ThreadPoolExecutor):
            raise ConfigurationError(
                "executor: builds in threads of the training process would change its random numbers; use "
                "executor='process', or an executor with processes of its own"
            )
        if self.max_pending < 1:
            raise ConfigurationError(f"max_pending must be 1 or more, got {self.max_pending!r}")
        if self.workers is not None and self.workers < 1:
            raise ConfigurationError(f"workers must be 1 or more, got {self.workers!r}")
        for name in ("build_deadline", "build_memory"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} must be more than 0, got {value!r}")

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Options:
        """Check what ``WindowsExport`` was given.

        Args:
            arguments: All of its arguments by name, as its signature has them.

        Raises:
            ConfigurationError: A value outside its choices or its range, or an executor of threads.
        """
        given = dict(arguments)
        own = {f.name for f in fields(ExportSettings)}
        settings = {name: given.pop(name) for name in [*given] if name in own}
        settings["compile_options"] = settings["compile_options"] or {}
        if given["executor"] is None:  # at the end nothing goes on that a build could slow down
            given["executor"] = "process" if given["when"] == "checkpoint" else "inline"
        given["inputs"] = dict(given["inputs"]) if given["inputs"] else None
        given["ranges"] = RangeOptions.of(given["ranges"])
        given["extra"] = dict(given["extra"] or {})
        return cls(settings=ExportSettings(**settings), **given)

    @property
    def every(self) -> bool:
        """Whether every checkpoint is exported as it is saved, or the best and the last at the end."""
        return self.when == "checkpoint"

    def make_executor(self) -> tuple[Executor, bool]:
        """Make or take the executor.

        Returns:
            The executor, and whether it is ours to shut down.
        """
        if isinstance(self.executor, Executor):
            return self.executor, False
        return named_executor(self.executor, self.build_deadline, self.build_memory, self.workers), True
