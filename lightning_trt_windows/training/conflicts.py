"""More than one WindowsExport on a Trainer: those that were only switched on make room for one that was configured."""

from __future__ import annotations

from typing import Any

from lightning_trt_windows._compat.lightning import rank_zero_info
from lightning_trt_windows.errors import ConfigurationError

__all__ = ["check_alone", "yields_to_configured"]


def yields_to_configured(export: Any, trainer: Any, kind: type[Any]) -> bool:
    """Take ``export``, which is a default, off the Trainer if another callback of ``kind`` does its work.

    Every rank decides the same, from the same list.
    """
    exports = [callback for callback in trainer.callbacks if isinstance(callback, kind)]
    configured = [other for other in exports if other.default_of is None]
    if not configured and exports[0] is export:
        return False
    # a new list: Lightning is on its way through the old one
    trainer.callbacks = [callback for callback in trainer.callbacks if callback is not export]
    rank_zero_info(f"WindowsExport: the Trainer already has a WindowsExport, so {export.default_of} adds none.")
    return True


def check_alone(trainer: Any, kind: type[Any]) -> None:
    """Refuse two callbacks of ``kind`` that were both configured.

    Raises:
        ConfigurationError: There are two.
    """
    configured = [other for other in trainer.callbacks if isinstance(other, kind) and other.default_of is None]
    if len(configured) > 1:
        raise ConfigurationError(
            f"this Trainer has {len(configured)} WindowsExport callbacks, which would write the same files. Keep one: "
            "they come from Trainer(callbacks=...) or trainer.callbacks, from --windows_export.*, and from the "
            "module's configure_callbacks()"
        )
