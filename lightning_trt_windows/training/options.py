"""What a user may choose about the exports of a training: one value, from the callback, a command line, YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from lightning_trt_windows.builds.options import BuildOptions
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.loggers import LogArtifacts

__all__ = ["Options"]

_Self = TypeVar("_Self", bound="Options")


def _one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Options(BuildOptions):
    """The arguments of ``lightning_trt_windows.WindowsExport``, which documents them, checked.

    Raises:
        ConfigurationError: A value outside its choices or its range, or an executor of threads.
    """

    when: Literal["train_end", "checkpoint"] = "train_end"
    executor: str | Executor = "inline"
    on_error: Literal["warn", "raise"] = "warn"
    keep_dropped: bool = False
    replace_queued: bool = False
    retrace: bool = False
    log_artifacts: LogArtifacts = None
    preflight: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        _one_of("when", self.when, ("train_end", "checkpoint"))
        _one_of("on_error", self.on_error, ("warn", "raise"))
        _one_of("log_artifacts", self.log_artifacts, (None, True, False, "all"))
        super().__post_init__()
        if isinstance(self.executor, ThreadPoolExecutor):
            raise ConfigurationError(
                "executor: builds in threads of the training process would change its random numbers; use "
                "executor='process', or an executor with processes of its own"
            )

    @classmethod
    def of(cls: type[_Self], arguments: Mapping[str, Any]) -> _Self:
        """Check what ``WindowsExport`` was given.

        Args:
            arguments: All of its arguments by name, as its signature has them.

        Returns:
            The options.

        Raises:
            ConfigurationError: A value outside its choices or its range, or an executor of threads.
        """
        given = dict(arguments)
        if given["executor"] is None:  # at the end nothing goes on that a build could slow down
            given["executor"] = "process" if given["when"] == "checkpoint" else "inline"
        return super().of(given)

    @property
    def every(self) -> bool:
        """Whether every checkpoint is exported as it is saved, or the best and the last at the end."""
        return self.when == "checkpoint"
