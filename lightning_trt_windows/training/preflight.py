"""What can be known before hours of training: whether the strategy, the disk and the module allow an export."""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lightning_trt_windows._compat.lightning import rank_zero_info, rank_zero_warn
from lightning_trt_windows.artifact.artifact import ArtifactPaths
from lightning_trt_windows.artifact.files import readable_size
from lightning_trt_windows.artifact.shapes import range_text, shape_text
from lightning_trt_windows.backends import get_backend
from lightning_trt_windows.backends.plan_file import LARGE
from lightning_trt_windows.checkpoints.reader import is_sharded
from lightning_trt_windows.discovery.discover import Discovered
from lightning_trt_windows.discovery.ranges import UnseenSymbolError
from lightning_trt_windows.errors import (
    ConfigurationError,
    LightningTrtError,
    OutputError,
    ShapeDiscoveryError,
    did_you_mean,
)
from lightning_trt_windows.export.options import ExportOptions
from lightning_trt_windows.export.pipeline import prepare
from lightning_trt_windows.modules.state import exported_part, has_forward
from lightning_trt_windows.progress.upstream_output import unlogged
from lightning_trt_windows.storage.remote_file import RemoteFile, is_remote, place_of
from lightning_trt_windows.training.doctor import installed_versions
from lightning_trt_windows.training.options import Options

__all__ = [
    "PREFLIGHT",
    "Preflight",
    "check_arguments",
    "check_machine",
    "check_request",
    "check_space",
    "check_strategy",
    "checkpoint_paths",
    "last_of",
    "try_capture",
]

PREFLIGHT = ("before the first step", "after the first step", "at the first checkpoint")
"""When a module is captured to see whether it can be, until it can."""

_SMALLEST = 1_000_000
"""Bytes, about: an artifact of hardly any weights."""


def check_request(trainer: Any, module: nn.Module, options: Options) -> None:
    """Refuse what can never be exported: by this strategy, or of this module.

    Raises:
        ConfigurationError: The other processes would wait for a build, or the options name a method or inputs that the
            module does not have.
    """
    check_strategy(trainer, options)
    check_arguments(module, options)


def check_machine(trainer: Any, module: nn.Module, options: Options) -> None:
    """Refuse what cannot be exported on this machine as it is now; otherwise say how exports will be made.

    Raises:
        ConfigurationError: The backend does not take the settings.
        EnvironmentMismatchError: A package is missing, or has a version that does not fit.
        OutputError: The disk has no room for one artifact.
    """
    settings = options.settings
    backend = get_backend(settings.backend)
    # names can only be checked against upstream itself, whose import takes seconds
    unusual = settings.compile_options or settings.compute_capabilities or settings.tensorrt_rtx
    if unusual or "onnx" in settings.formats:
        backend.check(settings)
    rank_zero_info(f"WindowsExport: engines by {backend.name}, with {installed_versions()}.")
    rank_zero_info(f"WindowsExport: {check_space(trainer.default_root_dir, module, options.settings.formats)}.")
    if not trainer.checkpoint_callbacks:
        rank_zero_info(
            "WindowsExport: this Trainer has no ModelCheckpoint. The final weights will be exported into its root "
            "directory."
        )


def check_strategy(trainer: Any, options: Options) -> None:
    """Refuse ways of training that exports would harm.

    Raises:
        ConfigurationError: The other processes would wait for a build.
    """
    if trainer.world_size > 1 and options.every and options.executor == "inline":
        raise ConfigurationError(
            f"executor='inline' with when='checkpoint' would let {trainer.world_size - 1} other processes wait for "
            "each build, until their communication times out; use executor='process'"
        )


def check_arguments(module: nn.Module, options: Options) -> None:
    """Refuse to look for what is not there: the method to export, and inputs that it does not take.

    Raises:
        ConfigurationError: ``module`` has no such method, or ``inputs`` names what is no argument of it.
    """
    owner, name = exported_part(module, options.method)
    if name == "forward" and not has_forward(owner):
        return  # steps may call a submodule; what is seen of them decides
    parameters = inspect.signature(getattr(owner, name)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for given in options.inputs or ():
        if given not in known and given.partition(".")[0] not in known:
            hint = did_you_mean(given, known, f"it takes {', '.join(known) or 'nothing'}")
            raise ConfigurationError(f"inputs: {options.method} of {type(owner).__name__} has no {given!r}{hint}")


def check_space(directory: str | os.PathLike[str], module: nn.Module, formats: Collection[str] = ("ep",)) -> str:
    """Refuse a disk without room for one artifact; otherwise a sentence about it.

    Args:
        directory: Where artifacts go.
        module: What they are of.
        formats: What is written of each; a model for ONNX Runtime has the engines once more.

    Returns:
        A sentence with the free space, and what an artifact needs.

    Raises:
        OutputError: There is less free space than an artifact of ``module`` takes: its weights twice and some, while it
            is made three times if they are large.
    """
    # artifacts of checkpoints elsewhere are built in a temporary directory
    place = Path(tempfile.gettempdir() if is_remote(directory) else directory)
    while not place.exists() and place != place.parent:
        place = place.parent
    weights = sum(p.numel() * p.element_size() for p in module.parameters() if not nn.parameter.is_lazy(p))
    # large engines are written once before they are written into the artifact
    needed = _SMALLEST + ((3 if "onnx" in formats else 2) + (weights >= LARGE)) * weights
    free = shutil.disk_usage(place).free
    sentence = f"{place} has {readable_size(free)} of free space, an artifact needs about {readable_size(needed)}"
    if free < needed:
        raise OutputError(f"{sentence}; free some, or let ModelCheckpoint write to another disk")
    return sentence


def try_capture(module: nn.Module, discovered: Discovered, *, method: str) -> str:
    """Capture ``module``, keep nothing, and say in a sentence how it went.

    Returns:
        The sentence.

    Raises:
        LightningTrtError: What would be raised after the training.
    """
    with unlogged():
        job = prepare(module, discovered, ArtifactPaths.of("preflight.ep"), ExportOptions(method=method))
    inputs = ", ".join(
        f"{record.name} {record.dtype} {shape_text(map(range_text, record.min, record.max))}" for record in job.inputs
    )
    return f"{type(module).__name__} can be captured ({job.capture_seconds:.1f} s), as far as seen with {inputs}"


class Preflight:
    """Captures a module early, to say what would fail later; what fails may pass at a later moment.

    Args:
        wanted: Whether the user wants to know.
    """

    def __init__(self, wanted: bool) -> None:
        self.left = list(PREFLIGHT) if wanted else []
        """Moments at which it is still to be tried."""
        self._told = ""

    def attempt(self, moment: str, name: str, capture: Callable[[], str]) -> None:
        """Try it, unless it has been tried at ``moment``, or has succeeded.

        Args:
            moment: One of ``PREFLIGHT``.
            name: The module's class, for the message.
            capture: See ``try_capture``.
        """
        if moment not in self.left:
            return
        self.left = self.left[self.left.index(moment) + 1 :]
        try:
            rank_zero_info(f"WindowsExport: {capture()}.")
            self.left = []
        except LightningTrtError as error:
            # before the first step nothing has been seen
            unseen = isinstance(error, ShapeDiscoveryError) and moment == PREFLIGHT[0]
            unseen |= isinstance(error, UnseenSymbolError)
            if unseen or str(error) == self._told:
                return
            self._told = str(error)
            later = self.left[0] if self.left else "when it is exported"
            rank_zero_warn(
                f"WindowsExport: {name} cannot be captured yet; it is tried again {later}. As it is now, there will be "
                f"no artifact: {error}"
            )


def checkpoint_paths(trainer: Any, *, every: bool) -> list[Path | RemoteFile]:
    """The checkpoints that are there: the best and the last of each ModelCheckpoint, or every one it keeps.

    Of a resumed run, every one in their directories: ModelCheckpoint itself does not remember them all.

    Returns:
        The checkpoints, each once.

    Raises:
        OSError: The checkpoints are on another file system, which does not answer.
    """
    paths: dict[str, Path | RemoteFile] = {}
    for callback in trainer.checkpoint_callbacks:
        kept = list(getattr(callback, "best_k_models", ())) if every else []
        directory = getattr(callback, "dirpath", None)
        if every and trainer.ckpt_path is not None and directory:
            kept += [str(path) for path in _checkpoints_in(place_of(directory))]
        for path in (*kept, getattr(callback, "best_model_path", ""), getattr(callback, "last_model_path", "")):
            place = place_of(path) if path else None
            if isinstance(place, RemoteFile):
                if place.url not in paths and place.size() is not None:
                    paths[place.url] = place
            elif place and (place.is_file() or is_sharded(place)):
                # last.ckpt may be a link to the best: it has an artifact of its own name all the same
                paths.setdefault(os.path.abspath(place), place)  # noqa: PTH100 -- resolve() would follow the link
    return list(paths.values())


def last_of(callback: Any) -> Path | RemoteFile | None:
    """What a ModelCheckpoint has saved last, and writes again when training ends; ``None`` where there is none."""
    path = getattr(callback, "last_model_path", "")
    return place_of(path) if path else None


def _checkpoints_in(directory: Path | RemoteFile) -> Sequence[Path | RemoteFile]:
    if isinstance(directory, RemoteFile):
        return directory.children(".ckpt")
    return sorted(directory.glob("*.ckpt"))
