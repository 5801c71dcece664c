"""``lightning.pytorch`` or ``pytorch_lightning``: the same code under two names, with different classes.

Which of them a Trainer comes from is known when it is made, and our callback may have been imported before that. So
``Callback`` derives from neither. ``of_imported`` gives a class that derives from the Callback of each Lightning that
has been imported by then as well, and objects are made of that class; an object that was made before turns into a
callback of a later Lightning when that one asks it for something that only a Callback has. Nothing is imported for its
sake: a second Lightning costs a quarter of a second, and turns the messages of the first to its own logger.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from unittest import mock

from lightning_trt_windows.progress.live import above_live

__all__ = [
    "CALLBACK_MODULES",
    "Callback",
    "before_setup",
    "checkpoint_io_base",
    "cli",
    "installed",
    "mapped_checkpoints",
    "of_imported",
    "rank_zero_info",
    "rank_zero_warn",
    "resolve",
    "set_method",
    "written_class",
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


def before_setup(strategy: Any, action: Callable[[], None]) -> Callable[[], None]:
    """Call ``action`` when ``strategy`` next sets up its model: after ``configure_model``, where there is no hook.

    Returns:
        Calls it off.
    """
    real = strategy.setup

    def setup(trainer: Any) -> None:
        put_back()
        action()
        real(trainer)

    put_back = set_method(strategy, "setup", setup)
    return put_back


def set_method(owner: Any, name: str, method: Callable[..., Any]) -> Callable[[], None]:
    """Put ``method`` on one object, in the place of that of its class or of what somebody else has put there.

    Returns:
        Puts back what was there, unless somebody has replaced ``method`` meanwhile; may be called again.
    """
    before = vars(owner).get(name)

    def put_back() -> None:
        if vars(owner).get(name) is not method:
            return
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    setattr(owner, name, method)
    return put_back


@contextlib.contextmanager
def mapped_checkpoints() -> Iterator[None]:
    """Let ``load_from_checkpoint`` in the block read files of this machine without taking their size in memory.

    It opens them itself, and PyTorch maps only what it is given the name of. What cannot be mapped is read as always.
    """
    found = [sys.modules.get(f"{name.partition('.callbacks')[0]}.core.saving") for name in CALLBACK_MODULES]
    with contextlib.ExitStack() as stack:
        for saving in found:
            if callable(load := getattr(saving, "pl_load", None)):
                stack.enter_context(mock.patch.object(saving, "pl_load", functools.partial(_load_mapped, load)))
        yield


def _load_mapped(load: Callable[..., Any], path: Any, *args: Any, **options: Any) -> Any:
    import torch

    if not args and sys.platform == "linux" and isinstance(path, (str, os.PathLike)) and os.path.isfile(path):  # noqa: PTH113
        # a file in an older format than zip, a file system that cannot be mapped, options of a later Lightning
        with contextlib.suppress(RuntimeError, OSError, ValueError, TypeError):
            return torch.load(path, mmap=True, **options)
    return load(path, *args, **options)


def of_imported(cls: type[_T]) -> type[_T]:
    """``cls`` as a Callback of every Lightning that has been imported until now.

    Each class that this returns derives from those that it returned for the same ``cls`` before.
    """
    root = _roots.get(cls, cls)
    latest = _latest.get(root, root)
    found = [getattr(sys.modules.get(module), "Callback", None) for module in CALLBACK_MODULES]
    if missing := tuple(base for base in found if base is not None and not issubclass(latest, base)):
        # Lightning keys the state of callbacks by their name; command lines name classes by where they are found
        module = getattr(root, "public_module", root.__module__)
        names = {"__module__": module, "__qualname__": root.__qualname__, "__doc__": root.__doc__}
        latest = type(root.__name__, (latest, *missing), names)
        _latest[root], _roots[latest] = latest, root
    return latest


def written_class(cls: type[_T]) -> type[_T]:
    """The class as it was written, of one that ``of_imported`` has made: what a pickle can name."""
    return _roots.get(cls, cls)


def resolve(callback: Any) -> bool:
    """Make ``callback`` a Callback of every Lightning that has been imported; whether that changed it."""
    cls = of_imported(type(callback))
    if cls is type(callback):
        return False
    callback.__class__ = cls
    return True


_latest: dict[type[Any], type[Any]] = {}
"""Class as it was written to the newest that derives from it and from Lightning's."""
_roots: dict[type[Any], type[Any]] = {}
"""The other way round."""

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
else:
    if not installed():
        raise ImportError("WindowsExport is a callback for Lightning, which is not installed: pip install lightning")
    # both of them log through this package, which is small and needs neither
    from lightning_utilities.core import rank_zero

    def rank_zero_info(message: str) -> None:
        """Log ``message`` in the first process, above what is live in the terminal."""
        with above_live(rank_zero.log):
            rank_zero.rank_zero_info(message, stacklevel=5)

    def rank_zero_warn(message: str) -> None:
        """Warn of ``message`` in the first process, above what is live in the terminal."""
        with above_live():
            rank_zero.rank_zero_warn(message, stacklevel=5)

    class Callback:
        """A callback of the Lightning that is there, or of both."""

        public_module: ClassVar[str]
        """The module that shows the class to users, where that is another than its own."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            """Make an object of the class that derives from the Callback of each imported Lightning."""
            return super().__new__(of_imported(cls))

        def __getattr__(self, name: str) -> Any:
            """Take what only a Callback has from the Lightning that asks for it: it has been imported by now."""
            if resolve(self):
                return getattr(self, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
