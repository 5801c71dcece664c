"""Weights & Biases: an artifact of type ``model`` with files and metadata, values in the run's summary."""

from __future__ import annotations

from typing import Any

from lightning_trt_windows.loggers.record import LoggedArtifact

__all__ = ["Adapter"]


class Adapter:
    """Adapter for ``WandbLogger``."""

    def log_values(self, logger: Any, record: LoggedArtifact) -> None:
        """Set values of the summary, those of the newest artifact."""
        logger.experiment.summary.update({f"windows/{key}": value for key, value in record.values.items()})

    def log_files(self, logger: Any, record: LoggedArtifact) -> None:
        """A version of ``NAME-windows``, where NAME is what the logger calls checkpoints; elsewhere, a reference."""
        import wandb

        name = getattr(logger, "_checkpoint_name", None) or f"model-{logger.experiment.id}"
        artifact = wandb.Artifact(f"{name}-windows", type="model", metadata=record.values)
        policy: Any = getattr(logger, "add_file_policy", "mutable")
        for path in record.files:
            artifact.add_file(str(path), name=path.name, policy=policy)
        if record.artifact.url is not None:
            artifact.add_reference(record.artifact.url, checksum=False)
        logger.experiment.log_artifact(artifact, aliases=record.aliases)
