"""Artifacts in the loggers of a Trainer: files as the logger takes checkpoints, and what the manifest says as values.

One module per kind of logger, imported when a Trainer has one. A logger of another kind is left alone, unless it has a
method ``log_windows_artifact``, or somebody has registered an adapter for it (``register``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, TypeAlias

from lightning_trt_windows.loggers.record import LoggedArtifact

__all__ = ["METHOD", "ArtifactLogging", "LogArtifacts", "LoggedArtifact", "LoggerAdapter", "register"]

LogArtifacts: TypeAlias = bool | Literal["all"] | None
"""``None``: as the logger's own ``log_model`` says. ``True``: files when training has finished; ``"all"``: at once; or
``False``: nothing at all."""

METHOD = "log_windows_artifact"
"""A logger that has it is called with each ``LoggedArtifact``, as its own adapter."""


class LoggerAdapter(Protocol):
    """What one kind of logger does with an artifact."""

    def log_values(self, logger: Any, record: LoggedArtifact) -> None:
        """Take the small part, as soon as the artifact is there: ``record.values``."""

    def log_files(self, logger: Any, record: LoggedArtifact) -> None:
        """Take the files, where and when checkpoints would be taken: ``record.files``."""


class _Own:
    """The adapter of a logger that has the method itself, and decides what to take."""

    def log_values(self, logger: Any, record: LoggedArtifact) -> None:
        """Nothing yet."""

    def log_files(self, logger: Any, record: LoggedArtifact) -> None:
        """Call it."""
        getattr(logger, METHOD)(record)


_BUILT_IN = {
    "CSVLogger": "csv",
    "CometLogger": "comet",
    "MLFlowLogger": "mlflow",
    "TensorBoardLogger": "tensorboard",
    "WandbLogger": "wandb",
}
"""Class of Lightning's to the module here. By name, because there are two Lightnings and either may be missing."""

_REGISTERED: dict[type, LoggerAdapter] = {}


def register(kind: type, adapter: LoggerAdapter) -> None:
    """Use ``adapter`` for loggers of the class ``kind`` and of those derived from it; the last one registered wins."""
    _REGISTERED.pop(kind, None)
    _REGISTERED[kind] = adapter


def adapter_of(logger: Any) -> LoggerAdapter | None:
    """Who takes artifacts for ``logger``; ``None`` where nobody does."""
    for kind, adapter in reversed(_REGISTERED.items()):
        if isinstance(logger, kind):
            return adapter
    if callable(getattr(logger, METHOD, None)):
        return _Own()
    for cls in type(logger).__mro__:
        lightning = cls.__module__.startswith(("lightning.pytorch.loggers.", "pytorch_lightning.loggers."))
        if lightning and cls.__name__ in _BUILT_IN:
            module = importlib.import_module(f"{__name__}.{_BUILT_IN[cls.__name__]}")
            found: LoggerAdapter = module.Adapter()
            return found
    return None


class ArtifactLogging:
    """Hands the artifacts of one run to its loggers. Nothing that a logger does wrong leaves this class.

    Args:
        loggers: Those of the Trainer.
        choice: See ``LogArtifacts``.
        every: Whether ModelCheckpoint keeps all (``save_top_k=-1``): loggers take each checkpoint at once then.
        warn: Called with a sentence where a logger fails.
    """

    def __init__(
        self, loggers: Iterable[Any], choice: LogArtifacts, *, every: bool, warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        self._loggers: list[tuple[Any, LoggerAdapter, bool | Literal["all"]]] = []
        self._later: dict[str, LoggedArtifact] = {}
        for logger in loggers if choice is not False else ():
            self._tell(logger, self._add, choice, every)

    def on_artifact(self, record: LoggedArtifact) -> None:
        """An artifact is there."""
        self._later[record.name] = record
        for logger, adapter, model in self._loggers:
            self._tell(logger, adapter.log_values, record)
            if model == "all":
                self._tell(logger, adapter.log_files, record)

    def on_removed(self, name: str) -> None:
        """The artifact that was called ``name`` was deleted. What a logger has of it stays."""
        self._later.pop(name, None)

    def finish(self, judged: Callable[[LoggedArtifact], LoggedArtifact]) -> None:
        """Training has finished: hand over what has waited for it. ``judged`` says which is the best now."""
        records, self._later = [judged(record) for record in self._later.values()], {}
        for logger, adapter, model in self._loggers:
            for record in records if model is True else ():
                self._tell(logger, adapter.log_files, record)

    def _add(self, logger: Any, choice: LogArtifacts, every: bool) -> None:
        adapter = adapter_of(logger)
        if adapter is None:
            return
        model = choice if choice is not None else getattr(logger, "_log_model", None)
        if model is None and (isinstance(adapter, _Own) or adapter in _REGISTERED.values()):
            model = "all"  # somebody has written what is done with it, for that purpose
        self._loggers.append((logger, adapter, "all" if model == "all" or (model and every) else bool(model)))

    def _tell(self, logger: Any, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(logger, *arguments)
        # a logger may fail in any way, and training goes on
        except Exception as error:
            self._warn(f"{type(logger).__name__} did not take an artifact: {type(error).__name__}: {error}")
