"""TensorBoard: a table under Text, at the step of the checkpoint. It takes no files."""

from __future__ import annotations

from typing import Any

from lightning_trt_windows.loggers.record import LoggedArtifact, markdown

__all__ = ["Adapter"]


class Adapter:
    """Adapter for ``TensorBoardLogger``."""

    def log_values(self, logger: Any, record: LoggedArtifact) -> None:
        """One text per checkpoint's name, so that each has a tab of its own."""
        logger.experiment.add_text(f"windows_export/{record.name}", markdown(record), record.step)
        logger.experiment.flush()

    def log_files(self, logger: Any, record: LoggedArtifact) -> None:
        """Nothing: event files are no place for them."""
