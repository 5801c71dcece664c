"""What every Trainer of every script asks through Lightning's entry points for callbacks, so it costs next to nothing.

With ``LIGHTNING_TRT_WINDOWS=1`` the Trainer gets a ``WindowsExport`` with the defaults, with a path the one that
the YAML file there describes. Unset, nothing is imported.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["VARIABLE", "callbacks"]

VARIABLE = "LIGHTNING_TRT_WINDOWS"

_OFF = ("", "0", "false", "no", "off")
_ON = ("1", "true", "yes", "on")


def callbacks() -> list[Any]:
    """The callbacks that the environment variable asks for: one or none.

    Returns:
        A list for the Trainer.

    Raises:
        ConfigurationError: The file that it names cannot be used.
    """
    value = os.environ.get(VARIABLE, "").strip()
    if value.lower() in _OFF:
        return []
    from lightning_trt_windows.integrations.yaml_config import export_described_in

    return [export_described_in(None if value.lower() in _ON else value, VARIABLE)]
