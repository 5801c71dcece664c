"""What the user asks of one export, in one value that is handed through whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from lightning_trt_windows.artifact.shapes import InputTree
from lightning_trt_windows.discovery.discover import Discovered, discover
from lightning_trt_windows.discovery.observer import Observer
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ConfigurationError
from lightning_trt_windows.settings import ExportSettings

__all__ = ["ExportOptions"]

_Self = TypeVar("_Self", bound="ExportOptions")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What ``export_module``, ``export_checkpoint`` and everything above them take, checked.

    Raises:
        ConfigurationError: A range option that does not exist or makes no sense.
    """

    settings: ExportSettings = field(default_factory=ExportSettings)
    """What artifacts are like: backend, precision, goldens (reference outputs), verification, options of upstream."""
    inputs: Mapping[str, InputTree] | None = None
    """Argument of ``forward`` to ``InputSpec``; goes before what is discovered."""
    ranges: RangeOptions = field(default_factory=RangeOptions)
    """How ranges are derived from what is seen."""
    method: str = "forward"
    """What to export instead of ``forward``."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the manifest, such as class names."""

    def __post_init__(self) -> None:
        # one type inside, whatever a caller or YAML gave; copies, so that later changes of the caller's do not matter
        object.__setattr__(self, "inputs", dict(self.inputs) if self.inputs else None)
        object.__setattr__(self, "ranges", RangeOptions.of(self.ranges))
        object.__setattr__(self, "extra", dict(self.extra or {}))

    @classmethod
    def of(cls: type[_Self], arguments: Mapping[str, Any]) -> _Self:
        """Sort the arguments of a public function into options and settings.

        Args:
            arguments: Fields of this class and of ``ExportSettings``, by name.

        Returns:
            The options.

        Raises:
            ConfigurationError: An argument is unknown, or a value is outside its choices or its range.
        """
        own = {f.name for f in fields(cls)} - {"settings"}
        given = {name: value for name, value in arguments.items() if name not in own}
        known = [f.name for f in fields(ExportSettings)]
        if unknown := [name for name in given if name not in known]:
            raise ConfigurationError(f"unknown setting {', '.join(unknown)}; known are {', '.join(known)}")
        options = {name: value for name, value in arguments.items() if name in own}
        return cls(settings=ExportSettings(**given), **options)

    def discover(self, module: Any, *, datamodule: Any = None, observer: Observer | None = None) -> Discovered:
        """Find the inputs of ``module`` and their ranges.

        Args:
            module: The module.
            datamodule: A LightningDataModule to take ranges from.
            observer: What a training has seen.

        Returns:
            The inputs, with where each range comes from.

        Raises:
            ShapeDiscoveryError: Nothing tells what the module takes.
            ConfigurationError: ``inputs`` or ``ranges`` name what the module does not take.
        """
        return discover(
            module,
            inputs=self.inputs,
            datamodule=datamodule,
            observer=observer,
            method=self.method,
            options=self.ranges,
        )
