"""The Trainer's side: when to export, on which rank, which checkpoints, and what if it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from lightning_trt_windows._compat.lightning import Callback, rank_zero_info, rank_zero_warn
from lightning_trt_windows.artifact import Artifact, ArtifactPaths
from lightning_trt_windows.backends import get_backend
from lightning_trt_windows.checkpoint import Checkpoint, read_checkpoint
from lightning_trt_windows.discover import Discovered, discover
from lightning_trt_windows.errors import ConfigurationError, LightningTrtError
from lightning_trt_windows.export import build, prepare
from lightning_trt_windows.module_state import weights_swapped
from lightning_trt_windows.observe import Observer
from lightning_trt_windows.settings import BackendName, ExportSettings, Precision
from lightning_trt_windows.shapes import InputSpec

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["Failure", "WindowsExport"]


@dataclass(frozen=True)
class Failure:
    """An artifact that could not be made."""

    checkpoint: Path | None
    """The checkpoint it was for; ``None`` where it failed before there was one."""
    error: Exception

    def __str__(self) -> str:
        name = self.checkpoint.name if self.checkpoint else "this run"
        return f"no Windows artifact for {name}: {type(self.error).__name__}: {self.error}"


class WindowsExport(Callback):
    """Put a ``.ep`` with TensorRT engines for Windows, and its manifest, beside the best and the last checkpoint.

    Args:
        when: ``"train_end"``: the best and the last checkpoint, when ``trainer.fit`` has finished.
        backend: ``"tensorrt_rtx"``, ``"tensorrt"``, or ``"auto"`` for the one that is installed.
        inputs: Argument of ``forward`` to :class:`InputSpec`; goes before what is discovered. By default the shapes
            and their ranges are taken from what ``forward`` receives during the run.
        precision: ``None``, which keeps the weights as they are; other values are not part of this version yet.
        executor: Where the build runs: ``"inline"``, in the training process after training.
        on_error: ``"warn"``: a failed export is a warning and an entry in :attr:`failures`; ``"raise"``: it is raised
            when everything that could be exported has been.
        compile_options: Options of Torch-TensorRT's ``CompilationSettings``; unknown keys are refused at setup.
        compute_capabilities: GPU generations to build for, such as ``["8.6", "8.9"]``; by default all from Ampere on.
        min_block_size: Smallest number of operators worth an engine.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifest, such as class names.

    Raises:
        ConfigurationError: An argument outside its choices.

    Example:
        >>> trainer = L.Trainer(callbacks=[WindowsExport()])
    """

    def __init__(
        self,
        when: Literal["train_end"] = "train_end",
        backend: BackendName = "auto",
        inputs: Mapping[str, InputSpec] | None = None,
        precision: Precision | None = None,
        executor: Literal["inline"] = "inline",
        on_error: Literal["warn", "raise"] = "warn",
        compile_options: Mapping[str, Any] | None = None,
        *,
        compute_capabilities: tuple[str, ...] = (),
        min_block_size: int = 1,
        method: str = "forward",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("when", when, ("train_end",)),
            ("executor", executor, ("inline",)),
            ("on_error", on_error, ("warn", "raise")),
        ):
            if value not in choices:
                raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        self.settings = ExportSettings(
            backend=backend,
            precision=precision,
            compute_capabilities=compute_capabilities,
            min_block_size=min_block_size,
            compile_options=compile_options or {},
        )
        self.when = when
        self.inputs = dict(inputs) if inputs else None
        self.executor = executor
        self.on_error = on_error
        self.method = method
        self.extra = dict(extra or {})
        self.artifacts: list[Artifact] = []
        """What has been made, newest last."""
        self.failures: list[Failure] = []
        """What went wrong, each with its checkpoint."""
        self._observer = Observer(method=method)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called before anything else. Refuses an environment in which the export cannot work, before the training."""
        if stage != "fit" or _fast_dev_run(trainer):
            return
        try:
            backend = get_backend(self.settings.backend)
            # names can only be checked against upstream itself, whose import takes seconds
            if self.settings.compile_options or self.settings.compute_capabilities:
                backend.check(self.settings)
        except ConfigurationError:
            raise
        except LightningTrtError as error:
            self._fail(None, error)
            if self.on_error == "raise":
                raise

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins. Starts to note what ``forward`` receives."""
        self._observer = Observer(method=self.method)
        self._observer.attach(pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Called before a training step. Notes the batch's shapes, for modules whose steps never call ``forward``."""
        self._observer.stage("train")
        self._observer.batch(batch)

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called before a validation step, also of the sanity check. Notes the batch's shapes."""
        self._observer.stage("sanity" if trainer.sanity_checking else "val")
        self._observer.batch(batch)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit has ended and every checkpoint is on disk. Exports the best and the last.

        ``on_train_end`` would be too early: ModelCheckpoint runs after all other callbacks and may write ``last.ckpt``
        there.
        """
        self._observer.detach()
        if not trainer.is_global_zero:
            return
        if _fast_dev_run(trainer):
            rank_zero_info("WindowsExport: fast_dev_run writes no checkpoints, so nothing is exported.")
            return
        before = len(self.failures)
        self._export_checkpoints(trainer, pl_module)
        if self.on_error == "raise" and len(self.failures) > before:
            raise self.failures[before].error

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Called when training is interrupted or fails. Nothing is exported."""
        self._observer.detach()
        rank_zero_info(
            "WindowsExport: training did not finish, nothing is exported. A checkpoint that was written can be "
            "exported with: lightning-trt-windows export CHECKPOINT --module package.module:Class"
        )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called at the very end. Leaves nothing on the module."""
        self._observer.detach()

    def _export_checkpoints(self, trainer: Trainer, pl_module: LightningModule) -> None:
        paths = _best_and_last(trainer)
        if not paths:
            rank_zero_warn(
                "WindowsExport: this run wrote no checkpoint, so there is nothing to export. ModelCheckpoint writes "
                "them (not with save_top_k=0 or enable_checkpointing=False); a module without a checkpoint is exported "
                "with lightning_trt_windows.export_module."
            )
            return
        try:
            discovered = discover(
                pl_module,
                inputs=self.inputs,
                datamodule=getattr(trainer, "datamodule", None),
                observer=self._observer,
                method=self.method,
            )
        except LightningTrtError as error:
            self._fail(None, error)
            return
        for checkpoint in self._readable(paths):
            self._export(checkpoint, pl_module, discovered)

    def _readable(self, paths: list[Path]) -> list[Checkpoint]:
        """The checkpoints in the order of training, those with the same weights once."""
        checkpoints: list[Checkpoint] = []
        for path in paths:
            try:
                # the Trainer wrote it in this run and would itself read it the same way
                checkpoint = read_checkpoint(path, trusted=True)
            except LightningTrtError as error:
                self._fail(path, error)
                continue
            if not any(checkpoint.same_weights(other) for other in checkpoints):
                checkpoints.append(checkpoint)
        return sorted(checkpoints, key=lambda c: c.global_step or 0)

    def _export(self, checkpoint: Checkpoint, pl_module: LightningModule, discovered: Discovered) -> None:
        rank_zero_info(f"WindowsExport: exporting {checkpoint.path.name} ...")
        try:
            with weights_swapped(
                pl_module, checkpoint.state_dict, where=checkpoint.path.name, strict=pl_module.strict_loading
            ):
                job = prepare(
                    pl_module,
                    discovered,
                    ArtifactPaths.beside(checkpoint.path),
                    self.settings,
                    method=self.method,
                    extra=self.extra,
                    checkpoint=checkpoint.record(),
                )
            artifact = build(job)
        # whatever happens here, the training that has just succeeded is not lost; the error is kept and reported
        except Exception as error:
            self._fail(checkpoint.path, error)
            return
        self.artifacts = [a for a in self.artifacts if a.path != artifact.path] + [artifact]
        for note in artifact.manifest.notes:
            rank_zero_info(f"WindowsExport: {note}")
        rank_zero_info(f"WindowsExport: {artifact}")

    def _fail(self, checkpoint: Path | None, error: Exception) -> None:
        failure = Failure(checkpoint, error)
        self.failures.append(failure)
        if self.on_error == "warn":
            rank_zero_warn(f"WindowsExport: {failure}")


def _best_and_last(trainer: Trainer) -> list[Path]:
    """The best and the last checkpoint of every ModelCheckpoint, each file once."""
    paths: dict[str, Path] = {}
    for callback in trainer.checkpoint_callbacks:
        for attribute in ("best_model_path", "last_model_path"):
            path = getattr(callback, attribute, "")
            if path and Path(path).is_file():
                # last.ckpt may be a link to the best
                paths.setdefault(os.path.realpath(path), Path(path))
    return list(paths.values())


def _fast_dev_run(trainer: Trainer) -> bool:
    # Lightning sets the attribute in a helper, where type checkers do not see it
    return bool(getattr(trainer, "fast_dev_run", False))
