"""``lightning.pytorch`` or ``pytorch_lightning``: the same code under two names, with different classes.

Which of them a Trainer comes from is known when it is made, and the callback may have been imported before that. So
``Callback`` is a class of its own that derives from the Callback of each Lightning that has been imported, and of
one that is imported later from that moment on. Nothing is imported for its sake: a second Lightning costs a quarter of
a second, and turns the messages of the first to its own logger.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["CALLBACK_MODULES", "Callback", "cli", "installed", "rank_zero_info", "rank_zero_warn"]

CALLBACK_MODULES = ("lightning.pytorch.callbacks.callback", "pytorch_lightning.callbacks.callback")
"""Where each Lightning defines its ``Callback``."""


def cli() -> Any:
    """The module with LightningCLI, of the Lightning that has been imported; ``lightning`` goes first."""
    imported = [name for name in CALLBACK_MODULES if name in sys.modules]
    owner = (imported or installed())[0].partition(".")[0]
    return importlib.import_module("pytorch_lightning.cli" if owner == "pytorch_lightning" else "lightning.pytorch.cli")


def installed() -> list[str]:
    """Which of the two are installed, by the name that is imported."""
    names = (module.partition(".")[0] for module in CALLBACK_MODULES)
    return [name for name in names if importlib.util.find_spec(name)]


if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
else:
    if not installed():
        raise ImportError("WindowsExport is a callback for Lightning, which is not installed: pip install lightning")
    # both of them log through this package, which is small and needs neither
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

    class _Plain:
        """Python lets the bases of a class be changed only where it has one besides ``object``."""

    class Callback(_Plain):
        """A callback of the Lightning that is there, or of both."""


def _adopt(module: ModuleType) -> None:
    """Make ``Callback``, and what derives from it, a Callback of the Lightning that ``module`` belongs to."""
    if module.Callback not in Callback.__bases__:
        Callback.__bases__ = (*Callback.__bases__, module.Callback)


class _Arrivals(PathFinder):
    """Finds the modules of ``CALLBACK_MODULES`` as Python does, and has them adopted when they have run."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the path holds, for two names; nothing for all others."""
        if fullname not in CALLBACK_MODULES:
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            _tell(spec.loader)
        return spec


def _tell(loader: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _adopt(module)

    loader.exec_module = exec_module


if not TYPE_CHECKING:
    for _name in CALLBACK_MODULES:
        if hasattr(sys.modules.get(_name), "Callback"):
            _adopt(sys.modules[_name])
    if not all(_name in sys.modules for _name in CALLBACK_MODULES):
        sys.meta_path.insert(0, _Arrivals)
