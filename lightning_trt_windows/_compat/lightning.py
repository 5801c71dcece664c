"""``lightning.pytorch`` or ``pytorch_lightning``: the same code under two names, with different classes.

Which of them a Trainer comes from is known when it is made, and our callback may have been imported before that. So
``Callback`` derives from neither. An object of it is made as one of a class that derives from the Callback of each
Lightning imported by then, and turns into one of a later Lightning when that one asks it for something that only a
Callback has. Nothing is imported for its sake: a second Lightning costs a quarter of a second, and turns the messages
of the first to its own logger.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = [
    "CALLBACK_MODULES",
    "Callback",
    "checkpoint_io_base",
    "cli",
    "installed",
    "of_imported",
    "rank_zero_info",
    "rank_zero_warn",
    "resolve",
]

CALLBACK_MODULES = ("lightning.pytorch.callbacks.callback", "pytorch_lightning.callbacks.callback")
"""Where each Lightning defines its ``Callback``."""

_T = TypeVar("_T")


def cli() -> Any:
    """The module with LightningCLI, of the Lightning that has been imported; ``lightning`` goes first."""
    imported = [name for name in CALLBACK_MODULES if name in sys.modules]
    owner = (imported or installed())[0].partition(".")[0]
    return importlib.import_module("pytorch_lightning.cli" if owner == "pytorch_lightning" else "lightning.pytorch.cli")


def installed() -> list[str]:
    """Which of the two are installed, by the name that is imported."""
    names = (module.partition(".")[0] for module in CALLBACK_MODULES)
    return [name for name in names if importlib.util.find_spec(name)]


def checkpoint_io_base(checkpoint_io: Any) -> type[Any]:
    """The ``CheckpointIO`` of the Lightning that ``checkpoint_io`` is of; ``object`` where it is of none."""
    named = (cls for cls in type(checkpoint_io).__mro__ if cls.__name__ == "CheckpointIO")
    return next(named, object)


def of_imported(cls: type[_T]) -> type[_T]:
    """``cls`` as a Callback of every Lightning that has been imported until now."""
    found = [getattr(sys.modules.get(module), "Callback", None) for module in CALLBACK_MODULES]
    missing = tuple(base for base in found if base is not None and not issubclass(cls, base))
    if not missing:
        return cls
    key = (cls, missing)
    if key not in _resolved:
        # the name and the module are those of ``cls``: Lightning keys the state of callbacks by their name
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        _resolved[key] = type(cls.__name__, (cls, *missing), names)
    return _resolved[key]


def resolve(callback: Any) -> bool:
    """Make ``callback`` a Callback of every Lightning that has been imported; whether that changed it."""
    cls = of_imported(type(callback))
    if cls is type(callback):
        return False
    callback.__class__ = cls
    return True


_resolved: dict[tuple[type[Any], tuple[type[Any], ...]], type[Any]] = {}

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
else:
    if not installed():
        raise ImportError("WindowsExport is a callback for Lightning, which is not installed: pip install lightning")
    # both of them log through this package, which is small and needs neither
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

    class Callback:
        """A callback of the Lightning that is there, or of both."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            """Make an object of the class that derives from the Callback of each imported Lightning."""
            return super().__new__(of_imported(cls))

        def __getattr__(self, name: str) -> Any:
            """Take what only a Callback has from the Lightning that asks for it: it has been imported by now."""
            if resolve(self):
                return getattr(self, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
