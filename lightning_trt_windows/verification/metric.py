"""The metric gate: what the user measures on validation data may drop by no more than the user allows."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lightning_trt_windows.artifact.artifact import write_manifest
from lightning_trt_windows.errors import ConfigurationError, VerificationError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lightning_trt_windows.runtime.loaded import LoadedModule

__all__ = ["MetricOutcome", "verify_metric"]


@dataclasses.dataclass(frozen=True)
class MetricOutcome:
    """A metric of the module and of its artifact."""

    name: str
    module: float
    artifact: float
    max_drop: float
    """How much worse the artifact's value may be."""
    higher_is_better: bool

    @property
    def drop(self) -> float:
        """How much worse the artifact's value is; negative where it is better."""
        return self.module - self.artifact if self.higher_is_better else self.artifact - self.module

    @property
    def passed(self) -> bool:
        """Whether it is no worse than it may be. NaN is not."""
        return self.drop <= self.max_drop


def verify_metric(
    artifact: str | os.PathLike[str] | LoadedModule,
    module: nn.Module,
    data: Any,
    metric: Callable[[Callable[..., Any], Iterable[Any]], float],
    *,
    max_drop: float = 0.01,
    higher_is_better: bool = True,
    device: str | torch.device = "cuda:0",
) -> MetricOutcome:
    """Compute ``metric`` with the module and with its artifact on the same batches, and write both into the manifest.

    Args:
        artifact: Either of its files; or what ``load`` gave.
        module: The module with the weights that were exported; runs in eval mode on the artifact's device and is put
            back where it was.
        data: A LightningDataModule, whose ``val_dataloader`` is taken, or any iterable of batches that can be iterated
            twice. Their tensors are moved to the device.
        metric: Called as ``metric(model, batches)``, once with each of the two; calls the model as ``forward`` is
            called and returns a number.
        max_drop: By how much the artifact may be worse, in the metric's own unit.
        higher_is_better: Whether it is worse when it is lower.
        device: The GPU, where ``artifact`` is a file.

    Returns:
        Both values, and by how much the artifact's is worse.

    Raises:
        VerificationError: The artifact is worse by more than ``max_drop``. The manifest then says so.
        ConfigurationError: ``data`` has no batches or can be iterated only once, or ``metric`` returns no number.
        ArtifactError: The artifact is damaged.
        EnvironmentMismatchError: This machine cannot run the artifact.
    """
    from lightning_trt_windows.runtime.loaded import LoadedModule
    from lightning_trt_windows.runtime.loading import load
    from lightning_trt_windows.verification.io_types import taking_the_modules_types

    loaded = artifact if isinstance(artifact, LoadedModule) else load(artifact, device)
    batches = _loader(data)
    name = getattr(metric, "__name__", type(metric).__name__)
    with _on_device(module, loaded.device):
        eager = _number(name, metric(module, _moved(batches, loaded.device)))
    ours = _number(name, metric(taking_the_modules_types(loaded), _moved(batches, loaded.device)))
    outcome = MetricOutcome(name, eager, ours, max_drop, higher_is_better)
    _record(loaded, outcome)
    if not outcome.passed:
        raise VerificationError(
            f"{name} of {loaded.artifact.path.name} is {ours:.6g}, of the module {eager:.6g}: worse by "
            f"{outcome.drop:.3g}, {max_drop:.3g} is allowed"
        )
    return outcome


def _loader(data: Any) -> Any:
    if callable(getattr(data, "val_dataloader", None)):
        for hook, arguments in (("prepare_data", ()), ("setup", ("validate",))):
            getattr(data, hook, lambda *_: None)(*arguments)
        data = data.val_dataloader()
    if iter(data) is data:
        raise ConfigurationError("data can be iterated only once, and is needed twice: give a DataLoader or a list")
    return data


def _moved(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    import torch
    from torch.utils._pytree import tree_map_only

    count = 0
    for batch in batches:
        count += 1
        yield tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), batch)
    if not count:
        raise ConfigurationError("data has no batches")


@contextlib.contextmanager
def _on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Run the block with the module on ``device``, in eval mode and without gradients; all as before afterwards."""
    import torch

    from lightning_trt_windows.modules.state import eval_mode

    home = next((t.device for t in [*module.parameters(), *module.buffers()]), device)
    module.to(device)
    try:
        with eval_mode(module), torch.no_grad():
            yield
    finally:
        module.to(home)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} must return a number, got {type(value).__name__}") from error


def _record(loaded: LoadedModule, outcome: MetricOutcome) -> None:
    found = {**vars(outcome), "passed": outcome.passed}
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}
    artifact = loaded.artifact
    verification = {**(artifact.manifest.verification or {}), "metric": plain}
    if not outcome.passed:
        verification["verdict"] = "failed"
    manifest = dataclasses.replace(artifact.manifest, verification=verification)
    write_manifest(artifact.manifest_path, manifest)
    loaded.artifact = dataclasses.replace(artifact, manifest=manifest)
