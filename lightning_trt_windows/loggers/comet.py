"""Comet: a model with files and metadata, values among the experiment's others."""

from __future__ import annotations

from typing import Any

from lightning_trt_windows.loggers.record import LoggedArtifact

__all__ = ["Adapter"]


class Adapter:
    """Adapter for ``CometLogger``. It has no ``log_model``: files are logged where the callback is asked to."""

    def log_values(self, logger: Any, record: LoggedArtifact) -> None:
        """Set *others*, those of the newest artifact."""
        logger.experiment.log_others({f"windows.{key}": value for key, value in record.values.items()})

    def log_files(self, logger: Any, record: LoggedArtifact) -> None:
        """Elements of the model ``NAME-windows``; elsewhere, a remote one."""
        model = f"{record.name}-windows"
        metadata = {**record.values, "aliases": record.aliases}
        for path in record.files:
            logger.experiment.log_model(model, str(path), file_name=path.name, metadata=metadata)
        if record.artifact.url is not None:
            logger.experiment.log_remote_model(model, record.artifact.url, metadata=metadata, sync_mode=False)
