"""How a checkpoint becomes a module and its inputs, without the training that wrote it."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_trt_windows.checkpoints.metadata import SHAPES, read_metadata
from lightning_trt_windows.checkpoints.reader import in_need_of_trust, read_checkpoint
from lightning_trt_windows.discovery.carried import observer_of
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.errors import CheckpointError, ConfigurationError
from lightning_trt_windows.export.options import ExportOptions

__all__ = ["CheckpointSource"]


@dataclass(frozen=True)
class CheckpointSource:
    """The user's classes, which turn a checkpoint into a module."""

    module_class: type
    """The LightningModule's class; built from the hyperparameters in each checkpoint."""
    datamodule: object | type | None = None
    """A LightningDataModule, or its class, to take ranges from."""
    trusted: bool = False
    """Allow checkpoints to run code while they are read."""

    def hyperparameters(self, checkpoint: Path) -> Mapping[str, Any]:
        """Read what the module of ``checkpoint`` is built with.

        Returns:
            The hyperparameters, by the keys that Lightning gives them.

        Raises:
            CheckpointError: The file is missing, damaged, or not a checkpoint of Lightning.
        """
        try:
            return read_metadata(checkpoint).hyperparameters
        except CheckpointError:  # of a form that only PyTorch reads
            return read_checkpoint(checkpoint, trusted=self.trusted).hyperparameters

    def module(self, checkpoint: Path) -> tuple[Any, Any]:
        """Build the module of ``checkpoint``, and the datamodule to take ranges from.

        Returns:
            The module, and the datamodule or ``None``.

        Raises:
            CheckpointError: The module or the datamodule cannot be built from what the checkpoint holds.
            ConfigurationError: A class is neither a LightningModule nor a LightningDataModule.
        """
        module = _rebuilt(self.module_class, checkpoint, self.trusted)
        datamodule = self.datamodule
        if isinstance(datamodule, type):
            datamodule = _rebuilt(datamodule, checkpoint, self.trusted)
        return module, datamodule

    def discover(self, checkpoint: Path, module: Any, datamodule: Any, options: ExportOptions) -> Discovered:
        """Find the inputs of ``module``: what the datamodule shows, or without one what ``checkpoint`` carries.

        Returns:
            The inputs, and where each range comes from.

        Raises:
            ShapeDiscoveryError: Neither the datamodule nor the checkpoint tells what the module takes.
            ConfigurationError: ``options`` name what the module does not take.
        """
        observer = None if datamodule is not None else _observer(checkpoint, module, options.method)
        return options.discover(module, datamodule=datamodule, observer=observer)


def _observer(checkpoint: Path, module: Any, method: str) -> Observer | None:
    """What the training that wrote ``checkpoint`` has seen of ``method``; ``None`` where the file does not say."""
    try:
        state = read_metadata(checkpoint).callbacks.get(SHAPES)
    except CheckpointError:
        return None  # of a form that only PyTorch reads: it is older than such states
    if not isinstance(state, dict):
        return None
    return observer_of(state, module, method, origin=f"by the training that wrote {checkpoint.name}")


def _rebuilt(cls: type, checkpoint: Path, trusted: bool) -> Any:
    """The LightningModule or LightningDataModule of a checkpoint, as ``load_from_checkpoint`` makes it."""
    if not hasattr(cls, "load_from_checkpoint"):
        raise ConfigurationError(
            f"{cls.__name__} is not a LightningModule or LightningDataModule (it has no load_from_checkpoint). "
            "For a plain module, load the weights yourself and call export_module"
        )
    try:
        # plain modules are exported where there is no Lightning
        from lightning_trt_windows._compat.lightning import mapped_checkpoints

        with mapped_checkpoints():
            return cls.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=not trusted)
    except Exception as error:
        if _fails_in_migration(error):
            raise CheckpointError(_not_migrated(checkpoint, error)) from error
        if isinstance(error, TypeError):
            raise CheckpointError(
                f"{cls.__name__} cannot be built from the hyperparameters in {checkpoint.name}: {error}. "
                "self.save_hyperparameters() in its constructor puts them there"
            ) from error
        if isinstance(error, pickle.UnpicklingError):
            raise in_need_of_trust(checkpoint, error) from error
        if isinstance(error, RuntimeError):
            raise CheckpointError(f"the weights in {checkpoint.name} do not fit {cls.__name__}: {error}") from error
        raise


def _fails_in_migration(error: Exception) -> bool:
    """Whether Lightning failed while it brought an old checkpoint up to date, and not in the user's module."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(".utilities.migration" in frame.f_globals.get("__name__", "") for frame in frames)


def _not_migrated(checkpoint: Path, error: Exception) -> str:
    try:
        version = read_metadata(checkpoint).lightning_version
    except CheckpointError:  # of before PyTorch 1.6
        version = None
    written = f"was written by Lightning {version}" if version else "does not say which Lightning wrote it"
    return (
        f"{checkpoint.name} {written}, and the Lightning that is installed cannot bring it up to date: "
        f"{type(error).__name__}: {error}. Make the module, give it the file's weights "
        f"(module.load_state_dict(torch.load({checkpoint.name!r}, weights_only=True)['state_dict'])) and call "
        "export_module; or load and save the checkpoint with the Lightning that wrote it"
    )
