"""MLflow: files in the folder of the checkpoint, values as tags of the run."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from lightning_trt_windows.loggers.record import LoggedArtifact

__all__ = ["Adapter"]

_LONGEST_TAG = 5000
"""Characters that MLflow takes."""
_ILLEGAL = re.compile(r"[^\w. :/-]")
"""What the name of a tag cannot have."""


class Adapter:
    """Adapter for ``MLFlowLogger``."""

    def log_values(self, logger: Any, record: LoggedArtifact) -> None:
        """Set tags, those of the newest artifact. ``windows.best`` names the best one."""
        from mlflow.entities import RunTag

        values = {f"windows.{_ILLEGAL.sub('_', key)}": str(value) for key, value in record.values.items()}
        if record.best:
            values["windows.best"] = record.artifact.path.name
        tags = [RunTag(key, value[:_LONGEST_TAG]) for key, value in values.items()]
        for start in range(0, len(tags), 100):  # the most that a batch may have
            logger.experiment.log_batch(logger.run_id, tags=tags[start : start + 100])

    def log_files(self, logger: Any, record: LoggedArtifact) -> None:
        """Log into the folder that the logger gives the checkpoint; metadata and aliases are files, as it has them."""
        prefix = getattr(logger, "_checkpoint_path_prefix", None) or ""
        folder = str(PurePosixPath(prefix) / record.name)
        for path in record.files:
            logger.experiment.log_artifact(logger.run_id, str(path), folder)
        stem = f"{folder}/{record.artifact.path.stem}"
        logger.experiment.log_dict(logger.run_id, record.values, f"{stem}.metadata.yaml")
        logger.experiment.log_text(logger.run_id, str(record.aliases), f"{stem}.aliases.txt")
