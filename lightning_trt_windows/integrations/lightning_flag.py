"""The flag ``--windows_export`` of a LightningCLI, and the group ``--windows_export.*``.

The value is one argument of two types, ``bool`` or ``WindowsExportOptions``, so that ``true``, ``false`` and a
group of options are the same key in YAML and on the command line, and a saved configuration says what was asked for.
The callback is made from it under a second key, ``windows_export_callback``, which jsonargparse computes.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from lightning_trt_windows._compat.lightning import Callback, of_imported
from lightning_trt_windows.errors import EnvironmentMismatchError
from lightning_trt_windows.training.callback import WindowsExport

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

__all__ = ["FLAG", "WindowsExportByFlag", "WindowsExportOptions", "add_windows_export", "callback_of_flag"]

FLAG = "windows_export"

_JSONARGPARSE = (4, 46)
"""The first release that makes objects of what a link has computed."""


class WindowsExportByFlag(of_imported(WindowsExport)):  # type: ignore[misc]  # a class that is made when it is asked for
    """What ``--windows_export=true`` adds: the defaults, unless the Trainer has a WindowsExport already."""

    default_of = f"--{FLAG}=true"


class NoWindowsExport(Callback):
    """What ``--windows_export=false`` adds, as Lightning wants a callback for every key: it takes itself off."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Called before anything else."""
        # a new list: Lightning is on its way through the old one
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self]


def _defaults() -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(WindowsExport).parameters.items()}


def _options() -> type[Any]:
    """A dataclass with the arguments of WindowsExport; jsonargparse makes one beside the callback, so no executors."""
    types = get_type_hints(WindowsExport.__init__) | {"executor": Literal["process", "inline"] | None}
    fields = [(name, types[name], dataclasses.field(default=default)) for name, default in _defaults().items()]
    made = dataclasses.make_dataclass("WindowsExportOptions", fields, frozen=True)
    made.__module__, made.__doc__ = __name__, WindowsExport.__doc__
    return made


WindowsExportOptions = _options()
"""What ``--windows_export.*`` can say: the arguments of ``WindowsExport``."""


def add_windows_export(parser: LightningArgumentParser) -> None:
    """Add the flag ``--windows_export`` and the group ``--windows_export.*`` to the parser of a LightningCLI.

    Args:
        parser: What a LightningCLI gives to ``add_arguments_to_parser``.

    Raises:
        EnvironmentMismatchError: The installed jsonargparse is too old.

    Example:
        >>> class MyCLI(LightningCLI):
        ...     def add_arguments_to_parser(self, parser):
        ...         add_windows_export(parser)
    """
    found = version("jsonargparse")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < _JSONARGPARSE:
        raise EnvironmentMismatchError(
            f"--{FLAG} needs jsonargparse {'.'.join(map(str, _JSONARGPARSE))} or newer, found {found}: "
            'pip install --upgrade "lightning-trt-windows[cli]". WindowsExport among trainer.callbacks works with any'
        )
    group = parser.add_argument_group("Engines for Windows beside the checkpoints")
    group.add_argument(
        f"--{FLAG}",
        type=bool | WindowsExportOptions,
        default=False,
        help="true exports with the defaults; any of the options below switches it on as well.",
    )
    _list_options(group)
    parser.add_subclass_arguments(Callback, f"{FLAG}_callback", required=False)
    parser.link_arguments(FLAG, f"{FLAG}_callback", compute_fn=callback_of_flag)
    parser.callback_keys.append(f"{FLAG}_callback")


def callback_of_flag(value: Any) -> dict[str, Any]:
    """The callback that a value of the flag asks for, as jsonargparse writes classes."""
    if isinstance(value, bool) or value is None:
        kind = WindowsExportByFlag if value else NoWindowsExport
        return {"class_path": f"{__name__}.{kind.__name__}"}
    given = value if isinstance(value, Mapping) else value.as_dict()
    return {"class_path": "lightning_trt_windows.WindowsExport", "init_args": given.get("init_args", given)}


def _list_options(group: Any) -> None:
    """Show the options where ``--help`` shows the flag: they are parsed as parts of it, so nothing else lists them."""
    texts = _documented(WindowsExport.__doc__ or "")
    for name, default in _defaults().items():
        key = f"{FLAG}.{name}"
        group._group_actions.append(argparse.Action([f"--{key}"], key, default=default, help=texts.get(name)))


def _documented(docstring: str) -> dict[str, str]:
    """Argument to its text, out of a docstring's ``Args``."""
    _, _, rest = inspect.cleandoc(docstring).partition("Args:\n")
    arguments, _, _ = rest.partition("\n\n")
    texts = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", arguments, flags=re.M)
    return {name: re.sub(r"\s+", " ", re.sub(r":\w+:|`", "", text)) for name, text in texts}
