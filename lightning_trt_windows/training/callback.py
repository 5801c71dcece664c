"""The Trainer's side: when to export, on which rank, which checkpoints, and what if it fails."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from lightning_trt_windows._compat.lightning import Callback, before_setup, rank_zero_info, resolve, written_class
from lightning_trt_windows.artifact.artifact import Artifact
from lightning_trt_windows.artifact.shapes import InputTree
from lightning_trt_windows.builds.queue import Failure
from lightning_trt_windows.checkpoints.metadata import SHAPES
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.loggers import LogArtifacts
from lightning_trt_windows.modules import alone
from lightning_trt_windows.settings import BackendName, ExportSettings, Format, IOPrecision, PrecisionName, Recurrent
from lightning_trt_windows.training.checkpoint_exports import CheckpointExports
from lightning_trt_windows.training.conflicts import check_alone, yields_to_configured
from lightning_trt_windows.training.events import Events
from lightning_trt_windows.training.guard import Guard, hook, never_raises
from lightning_trt_windows.training.options import Options
from lightning_trt_windows.training.outbox import Outbox
from lightning_trt_windows.training.outcomes import Outcomes
from lightning_trt_windows.training.preflight import Preflight, check_machine, check_request, try_capture
from lightning_trt_windows.training.publisher import Publisher
from lightning_trt_windows.training.session import Session
from lightning_trt_windows.training.state import go_on
from lightning_trt_windows.training.unsharded import Unsharded, is_narrowed, is_sharding

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["Failure", "WindowsExport"]


class WindowsExport(Callback):
    """Put a ``.ep`` with TensorRT engines for Windows, and its manifest, beside checkpoints.

    Args:
        when: ``"train_end"``: the best and the last checkpoint, when ``trainer.fit`` has finished. ``"checkpoint"``:
            every checkpoint that is saved, whoever saves it, while training goes on; ``trainer.fit`` returns when the
            artifacts are complete.
        backend: ``"tensorrt_rtx"``, ``"tensorrt"``, or ``"auto"`` for the one that is installed.
        inputs: Argument of ``forward`` to ``InputSpec``; goes before what is discovered. By default the shapes
            and their ranges are taken from what ``forward`` receives during the run.
        precision: ``"16"``, ``"bf16"`` or ``"32"``: what engines compute in. By default the type of the weights, which
            is float32 under ``Trainer(precision="16-mixed")`` too.
        executor: Where engines are built. ``"process"``: in processes of low priority, ``workers`` at a time; the
            default with ``when="checkpoint"``. ``"inline"``: in the training process, which waits; the default with
            ``when="train_end"``. ``"dask:ADDRESS"``, ``"submitit:FOLDER"``, ``"loky:N"``: by others. Or any
            ``concurrent.futures.Executor`` of processes.
        on_error: ``"warn"``: a failed export is a warning and an entry in ``failures``; ``"raise"``: it is raised
            when everything that could be exported has been.
        compile_options: Options of Torch-TensorRT's ``CompilationSettings``; unknown keys are refused at setup.
        ranges: How ranges are derived from what is seen: margins, caps, dimensions to fix or to free.
        io_precision: What floating-point inputs and outputs of artifacts are: ``"module"``, as the module has them, or
            ``"engine"``, the type that ``precision`` names.
        compute_capabilities: GPU generations to build for, such as ``["8.6", "8.9"]``; by default all from Ampere on.
        tensorrt_rtx: Version of TensorRT-RTX that must build the engines, such as ``"1.7"``: that of the execution
            provider or SDK that will load them. By default the one that is installed; another is refused at setup.
        min_block_size: Minimum number of operators in a TensorRT subgraph.
        golden: Record goldens (inputs and reference outputs of the module) beside each artifact, for ``verify``.
        verify: Verify each artifact when it has been written, and write the verdict into its manifest: ``True`` where
            there must be a GPU that runs it, ``"auto"`` where there may be one. A wrong one is a failure and stays.
        check: Compare what engines will compute with the module before they are built, on the CPU: ``"auto"`` within a
            second or two, ``"full"`` at all sizes, ``False`` not at all. What differs runs in PyTorch (fallback) or is
            refused.
        formats: ``("ep",)``, or ``("ep", "onnx")``: also a model for ONNX Runtime and Windows ML beside each artifact,
            with operators of ONNX for what stays in PyTorch; where one has no form in ONNX, a warning names it.
        recurrent: Where LSTM, GRU and RNN run: ``"engine"``, ``"pytorch"`` (cuDNN), or ``"auto"``, where it is faster.
        method: What to export instead of ``forward``.
        extra: JSON values for the manifest, such as class names.
        keep_dropped: Keep the artifact of a checkpoint that is deleted (``save_top_k``).
        max_pending: Builds that an executor is given at a time; further ones wait as files.
        replace_queued: Let a newer checkpoint take the place of those that still wait for their build.
        build_deadline: Seconds that one build may take in ``executor="process"``.
        build_memory: Gigabytes (10^9 bytes) that one build may take there; by default four fifths of what the machine
            has available when it begins.
        workers: Builds at a time there; by default one for each 8 processor cores and 8 GB of available memory, from 1
            to 4.
        retrace: Capture the module for every checkpoint, even where nothing has changed but its weights.
        log_artifacts: What loggers are given besides the manifest's values: ``True`` the files of what is there at the
            end, ``"all"`` each as it is made; by default what their ``log_model`` says. ``False``: nothing at all.
        progress: Show what training waits for at its end, and a summary, in the style of the Trainer's progress bar;
            where that is switched off, nothing is shown.
        preflight: After the sanity check, or without one after the first step, capture the module once, to learn early
            whether it can be.

    Raises:
        ConfigurationError: An argument is outside its choices or its range.

    Example:
        >>> trainer = L.Trainer(callbacks=[WindowsExport()])
    """

    public_module = "lightning_trt_windows"

    state_key = SHAPES
    """Key of the state in checkpoints: the same however the callback was switched on. An attribute, for nothing of
    ours may fail where Lightning asks for it."""

    default_of: str | None = None
    """What has added this callback without saying more; one that the user has configured goes before it."""

    def __init__(
        self,
        when: Literal["train_end", "checkpoint"] = "train_end",
        backend: BackendName = "auto",
        inputs: Mapping[str, InputTree] | None = None,
        precision: PrecisionName | None = None,
        executor: str | Executor | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        compile_options: Mapping[str, Any] | None = None,
        *,
        ranges: RangeOptions | None = None,
        io_precision: IOPrecision = "module",
        compute_capabilities: tuple[str, ...] = (),
        tensorrt_rtx: str | None = None,
        min_block_size: int = 1,
        golden: bool = False,
        verify: bool | Literal["auto"] = False,
        check: Literal["auto", "full", False] = "auto",
        formats: tuple[Format, ...] = ("ep",),
        recurrent: Recurrent = "auto",
        method: str = "forward",
        extra: Mapping[str, Any] | None = None,
        keep_dropped: bool = False,
        max_pending: int = 16,
        replace_queued: bool = False,
        build_deadline: float | None = None,
        build_memory: float | None = None,
        workers: int | None = None,
        retrace: bool = False,
        log_artifacts: LogArtifacts = None,
        preflight: bool = True,
        progress: bool = True,
    ) -> None:
        given, before = locals(), frozenset(vars(self))
        super().__init__()
        # as they were given: what a copy of this callback is made from
        self._arguments = {name: given[name] for name in _ARGUMENTS}
        self.options = Options.of(self._arguments)
        self._outcomes = Outcomes(on_error)
        self._outbox = Outbox(self._outcomes)
        self._guard = Guard(self._outcomes.on_failure)
        self._events = Events(self._guard, [self._outcomes])
        self._observer = Observer(method=method)
        self._session: Session | None = None
        self._switched_off = False
        self._unsharded: Unsharded | None = None
        self._forget_setup: Callable[[], None] = lambda: None
        self._module: Callable[[], Any] | None = None
        """Gives what is captured."""
        self._preflight = Preflight(False)
        self._carried: Any = None
        """State of the checkpoint that training is resumed from."""
        self._own: frozenset[str] = frozenset({*vars(self), "_own"} - before)
        """What is set here: the arguments, which are enough to make it again, and the state of a run."""

    @property
    def settings(self) -> ExportSettings:
        """What artifacts are like."""
        return self.options.settings

    @property
    def when(self) -> str:
        """``"train_end"`` or ``"checkpoint"``."""
        return self.options.when

    @property
    def on_error(self) -> str:
        """``"warn"`` or ``"raise"``."""
        return self.options.on_error

    @property
    def artifacts(self) -> list[Artifact]:
        """What has been made and is there, that of the newest checkpoint last, in whichever order builds ended.

        Also what a copy made in a process that this one has started.
        """
        self._outbox.collect()
        return self._outcomes.artifacts

    @property
    def failures(self) -> list[Failure]:
        """What went wrong, each with its checkpoint."""
        self._outbox.collect()
        return self._outcomes.failures

    @never_raises
    def __repr__(self) -> str:  # the Trainer's constructor asks for it
        return f"<WindowsExport, when={self.when!r}: {len(self.artifacts)} artifacts, {len(self.failures)} failures>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        self._outbox.collect()
        return self._outcomes.as_html()

    def __reduce__(self) -> Any:
        """Pickle the settings, and nothing of a run. An executor that is an object stays behind: its default goes."""
        arguments = dict(self._arguments)
        if isinstance(arguments["executor"], Executor):
            arguments["executor"] = None
        return _made_again, (written_class(type(self)), arguments, self._more(), self._outbox.address)

    def __deepcopy__(self, memo: dict[int, Any]) -> WindowsExport:
        """Copy the settings, and nothing of a run. What a copy exports is in ``artifacts`` of both, and so failures."""
        made = _made_again(written_class(type(self)), dict(self._arguments), self._more(), self._outbox.address)
        memo[id(self)] = made
        made._outcomes.artifacts = self._outcomes.artifacts
        made._outcomes.failures = self._outcomes.failures
        return made

    def _more(self) -> dict[str, Any]:
        """What others have set on this object, such as ``default_of``, or a class that derives from this one."""
        return {name: value for name, value in vars(self).items() if name not in self._own}

    @override
    @hook(raises=True)
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called before anything else. Says what can be known about the export before the training."""
        resolve(self)
        if self.default_of and yields_to_configured(self, trainer, WindowsExport):
            return
        alone.begin(trainer)
        if stage != "fit" or _fast_dev_run(trainer):
            return
        self._switched_off = True  # until all that is known to prevent an export has been looked at
        self._guard.directory = trainer.default_root_dir
        check_alone(trainer, WindowsExport)
        check_request(trainer, pl_module, self.options)
        try:
            check_machine(trainer, pl_module, self.options)
        finally:
            error = sys.exc_info()[1]
            # what may be fixed before the export comes (a package, the disk) is told, and does not prevent it
            self._switched_off = isinstance(error, ConfigurationError)
        self._unsharded = None
        if not self._switched_off and trainer.is_global_zero and is_sharding(trainer.strategy):
            self._unsharded = Unsharded(trainer, pl_module)
            self._forget_setup = before_setup(trainer.strategy, self._before_sharding)

    @override
    @hook(raises=True)
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit begins. Starts to note what ``forward`` receives."""
        self._session = None
        if self._switched_off:
            return
        self._outcomes.begin()
        self._guard.begin()
        self._observer = Observer(method=self.options.method, as_float32=is_narrowed(trainer))
        self._observer.attach(pl_module)
        self._preflight = Preflight(self.options.preflight)
        if _fast_dev_run(trainer) or not trainer.is_global_zero:
            return
        ranges = functools.partial(self._discover, trainer, pl_module)
        self._events = events = Events(self._guard, [self._outcomes, self._outbox])
        whole = self._unsharded is None
        self._module = module = (lambda: pl_module) if self._unsharded is None else self._unsharded.module
        exports = CheckpointExports(module, ranges, self.options, events, self._guard, has_weights=whole)
        events.add(Publisher(trainer, self.options.log_artifacts, exports.later))
        self._session = Session(
            trainer, exports, events, self._outcomes, self._guard, self._observer, ranges, self.options
        )
        self._go_on()

    @override
    @hook()
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Called before a training step. Notes the batch's shapes, for modules whose steps never call ``forward``."""
        if self._session is not None:
            self._session.look()
        self._observer.stage("train")
        self._observer.batch(batch)

    @override
    @hook()
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Called before a validation step, also of the sanity check. Notes the batch's shapes."""
        self._observer.stage("sanity" if trainer.sanity_checking else "val")
        self._observer.batch(batch)

    @override
    @hook()
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called before the first training step. Captures the module once, to say now what would fail later."""
        self._try_capture(trainer, pl_module, "before the first step")

    @override
    @hook()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called after a training step. After the first one the module is captured if it could not be before."""
        if self._preflight.left:
            self._try_capture(trainer, pl_module, "after the first step")

    @override
    @hook()
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Called before a checkpoint is written. Takes down what module and data are like; the shapes go along.

        They stand in ``checkpoint["callbacks"]["WindowsExport"]``, where states of callbacks are, and
        ``load_state_dict`` gets them from there. ``state_dict`` itself is not overridden: Lightning refuses a Trainer
        with two such callbacks before one that was only switched on could make room for one that was configured.
        """
        if self._session is None:
            return
        if self._preflight.left and not self.options.every:
            self._try_capture(trainer, pl_module, "at the first checkpoint")
        self._session.save(checkpoint)

    @override
    @hook()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a training is resumed. What it saw before counts."""
        self._carried = state_dict
        if self._session is not None:  # strategies that restore late
            self._go_on()

    @override
    @hook()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called after an epoch. Reports what has been built."""
        if self._session is not None:
            self._session.look()

    @override
    @hook()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training ends. Starts what is on disk; ModelCheckpoint may write ``last.ckpt`` after this."""
        if self._session is not None:
            self._session.begin_end()

    @override
    @hook(raises=True)
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when fit has ended and every checkpoint is on disk. Waits for the artifacts.

        ModelCheckpoint runs after all other callbacks, and may have written ``last.ckpt`` after our ``on_train_end``.
        Nothing collective comes after this, so that no other process waits for this one.
        """
        session, self._session = self._session, None
        alone.end(trainer)  # no more steps: trainings that end at the same time export one after the other
        try:
            self._observer.detach()
        finally:
            if session is not None:
                session.end()
                self._events.on_finished()
        if _fast_dev_run(trainer):
            rank_zero_info("WindowsExport: fast_dev_run writes no checkpoints, so nothing is exported.")
        if self.on_error == "raise" and self._outcomes.new_failures:
            raise self._outcomes.new_failures[0].error

    @override
    @hook()
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Called when training is interrupted or fails. An interruption ends the builds as well."""
        alone.end(trainer)
        self._observer.detach()
        if self._session is None:
            return
        if not self._session.end_of_failed(exception):
            self._session = None
            rank_zero_info(
                "WindowsExport: training did not finish, nothing is exported. A checkpoint that was written can be "
                "exported with: lightning-trt-windows export CHECKPOINT --module package.module:Class"
            )

    @override
    @hook()
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called at the very end. Leaves nothing on the module and the Trainer."""
        alone.end(trainer)
        self._carried = None
        self._unsharded = None
        self._forget_setup()
        self._observer.detach()
        if self._session is not None:
            self._session.detach()

    def _before_sharding(self) -> None:
        """Called when the module is complete, and before its strategy spreads it over processes."""
        with self._guard("copying the module before it is spread over processes"):
            if self._unsharded is not None:
                self._unsharded.before_sharding()

    def _go_on(self) -> None:
        """Count on from what the checkpoint carries that training is resumed from."""
        state, self._carried = self._carried, None
        if state is not None and (why := go_on(self._observer, state)):
            rank_zero_info(f"WindowsExport: {why}. What this run sees counts.")

    def _try_capture(self, trainer: Trainer, pl_module: LightningModule, moment: str) -> None:
        """Capture the module once, to say early what would fail later."""
        session, module = self._session, self._module
        if session is None or module is None or not (self._observer.calls() or self._observer.batches()):
            return

        def capture() -> str:
            with session.unobserved():
                return try_capture(module(), self._discover(trainer, pl_module), method=self.options.method)

        self._preflight.attempt(moment, type(pl_module).__name__, capture)

    def _discover(self, trainer: Trainer, pl_module: LightningModule) -> Discovered:
        datamodule = getattr(trainer, "datamodule", None)
        return self.options.discover(pl_module, datamodule=datamodule, observer=self._observer)


def _fast_dev_run(trainer: Trainer) -> bool:
    # Lightning sets the attribute in a helper, where type checkers do not see it
    return bool(getattr(trainer, "fast_dev_run", False))


def _made_again(
    cls: type[WindowsExport], arguments: dict[str, Any], more: dict[str, Any], address: tuple[str, int]
) -> WindowsExport:
    """A callback with the settings of another one, which is told what it exports in a child process."""
    made = cls.__new__(cls)
    WindowsExport.__init__(made, **arguments)
    vars(made).update(more)
    made._outbox = Outbox(made._outcomes, address)
    return made


_ARGUMENTS = frozenset(inspect.signature(WindowsExport.__init__).parameters) - {"self"}
